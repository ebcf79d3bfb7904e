"""Claims on parts: files by which workers that share a folder agree on who does what.

    claims/<part>.<n>     the n-th claim of a part, made by O_CREAT|O_EXCL; its owner as JSON
    claims/.clock.<token> touched by a worker that wants to know the time there
    private/<token>-<part>  a part before it is published

The newest claim of a part counts. Its owner touches it every 30 seconds; another worker makes the
next one where its owner is known to be gone (a process of this machine that ended), gave it back
(a modification time of 0) or has not touched it for 10 minutes. Ages are differences between two
files' times in one folder, so that clocks of different machines are never compared.

Claims save work. What keeps a part from counting twice is that it appears once, by a hard link
that fails where it is there already: a worker that was taken for dead and comes back finds it.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import orjson

CLAIMS = "claims"
PRIVATE = "private"
STALE_SECONDS = 600.0
BEAT_SECONDS = 30.0
# What file systems without hard links say of them (vfat, SMB, some of FUSE).
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_GIVEN_BACK = (0, 0)  # times of access and modification


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The worker that holds a claim, as the claim's JSON has it."""

    host: str
    machine: str  # since it was started, and within it the namespace of process ids
    pid: int
    started: str  # the process, in the machine's own ticks: ids come again
    job: str  # of a scheduler, "" without one
    token: str  # of this worker's own

    def is_known_gone(self, machine: str) -> bool:
        """Returns whether it was a process of this `machine` and has ended."""
        return self.machine == machine != "" and _started(self.pid) != self.started


def this_process(job: str = "") -> Owner:
    """Returns this process as an owner, with a token that no other has."""
    return Owner(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        job=job,
        token=uuid4().hex[:16],
    )


class Claims:
    """One worker's claims below `folder`, kept alive from entering to leaving it as a context.

    What it holds unfinished when it leaves, it gives back.
    """

    def __init__(
        self,
        folder: Path,
        owner: Owner,
        *,
        stale_seconds: float = STALE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self.folder = folder
        self.owner = owner
        self._stale_seconds = stale_seconds
        self._beat_seconds = beat_seconds
        self._held: dict[str, int] = {}  # the number of this worker's claim, by part
        self._lock = threading.Lock()
        self._is_leaving = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_leaving.set()
        self._thread.join()
        for name in list(self._held):
            self._let_go(name, times=_GIVEN_BACK)

    def take(self, name: str, *, takes_over: bool = True) -> bool:
        """Claims a part; returns whether it is this worker's.

        It is where nobody claimed it, and with `takes_over` where whoever did is taken for dead.
        Not where others end the unit at this moment, and its claims go with it.
        """
        number = self._newest(name) if takes_over else 0
        with suppress(FileNotFoundError):
            if number and not self._is_stale(self._claim(name, number)):
                return False
            self._claims.mkdir(parents=True, exist_ok=True)
            with self._lock:
                is_ours = self._made(self._claim(name, number + 1))
                if is_ours:
                    self._held[name] = number + 1
            return is_ours
        return False

    def is_mine(self, name: str) -> bool:
        """Returns whether the newest claim of a part is this worker's, and the unit not ended."""
        number = self._held.get(name, 0)
        return number > 0 and self._newest(name) == number

    def is_held(self, name: str) -> bool:
        """Returns whether a part is claimed by a worker that is not taken for dead."""
        number = self._newest(name)
        with suppress(FileNotFoundError):  # others end the unit
            return number > 0 and not self._is_stale(self._claim(name, number))
        return False

    def deliver(self, output: Path, write: Callable[[Path], None]) -> bool:
        """Has a claimed part written to a private path and published as `output`.

        Returns False where another worker published it before; then this one's is dropped.
        """
        private = self.folder / PRIVATE / f"{self.owner.token}-{output.name}"
        try:
            write(private)
            is_published = self.publish(private, output)
        except FileNotFoundError:
            # Others ended the unit, and with it went the folder of what only working on it needs.
            if not output.is_file():
                raise
            is_published = False
        self._let_go(output.name)
        return is_published

    def publish(self, private: Path, output: Path) -> bool:
        """Makes a whole file appear as `output`, unless one is there; `private` goes either way.

        Where there are no hard links it is renamed under a claim of its own, after a look at
        whether one is there: as sure as the claim.
        """
        try:
            os.link(private, output)
            is_published = True
        except FileExistsError:
            # Also what a repeated request over NFS is told whose first had been heard.
            is_published = private.samefile(output)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            is_published = self._renamed(private, output)
        private.unlink(missing_ok=True)
        return is_published

    def _made(self, claim: Path) -> bool:
        """Makes a claim that names its owner from the first moment; False where it is there."""
        content = orjson.dumps(asdict(self.owner))
        private = self._claims / f".claim.{self.owner.token}"
        private.write_bytes(content)
        try:
            os.link(private, claim)
        except FileExistsError:  # somebody was faster, or NFS asked twice
            return private.samefile(claim)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A worker killed between the two is taken for alive until its claim has grown old.
            try:
                file = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            with os.fdopen(file, "wb") as made:
                made.write(content)
        finally:
            private.unlink(missing_ok=True)
        return True

    @property
    def _claims(self) -> Path:
        return self.folder / CLAIMS

    def _claim(self, name: str, number: int) -> Path:
        return self._claims / f"{name}.{number}"

    def _newest(self, name: str) -> int:
        """Returns the number of a part's newest claim, 0 where there is none; none is removed."""
        number = 0
        while self._claim(name, number + 1).exists():
            number += 1
        return number

    def _is_stale(self, claim: Path) -> bool:
        # Opened, because over NFS only that asks the server for the time.
        with claim.open("rb") as file:
            content, modified = file.read(), os.fstat(file.fileno()).st_mtime
        owner = _read_owner(content)
        if owner is not None and owner.is_known_gone(self.owner.machine):
            return True
        return modified < self._now() - self._stale_seconds

    def _now(self) -> float:
        """Returns the time as the folder's file system has it."""
        clock = self._claims / f".clock.{self.owner.token}"
        with clock.open("wb") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime

    def _renamed(self, private: Path, output: Path) -> bool:
        name = f"{output.name}.rename"
        if not self.take(name):
            return False
        is_ours = self.is_mine(name) and not output.exists()
        if is_ours:
            os.replace(private, output)
        self._let_go(name)
        return is_ours

    def _let_go(self, name: str, times: tuple[int, int] | None = None) -> None:
        """Touches a claim no more; `times` are what it is left with, or None as it is."""
        with self._lock:
            number = self._held.pop(name, None)
            if number is not None and times is not None:
                with suppress(FileNotFoundError):
                    os.utime(self._claim(name, number), times)

    def _keep_alive(self) -> None:
        while not self._is_leaving.wait(self._beat_seconds):
            with self._lock:
                for name, number in self._held.items():
                    with suppress(OSError):  # a file system out of reach may be back at the next
                        os.utime(self._claim(name, number))


def _read_owner(content: bytes) -> Owner | None:
    """Returns whom a claim names; None for one that was killed before it could say."""
    try:
        return Owner(**orjson.loads(content))
    except (ValueError, TypeError):
        return None


def _machine() -> str:
    """Returns what tells process ids apart; "" where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Returns when a process was started, in ticks; "" where there is none, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if fields[0] in "ZX" else fields[19]
