"""Runs every patch in its instance's container and keeps what the tests said.

Writes  LOGS/<instance>/<digest>.log, what the evaluation printed, for the official grader
        LOGS/<instance>/<digest>.json, last: how the run ended; the run is finished once it is there

The digest is of image, evaluation script, patch, engine and whether there is a network, so another
of these is another run, and a run that is there is not made again, unless its time was up and it
may live longer this time. What the engine could not do leaves nothing: the same command does it.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mira_megatron.eval.kept_results import keep_json
from mira_megatron.eval.swe.engines import (
    EVALUATION_FILE,
    PATCH_FILE,
    PATCH_REFUSED,
    SCRIPT,
    SCRIPT_FILE,
    Engine,
)
from mira_megatron.eval.verdicts import digest

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 256 << 20
_SAID_BYTES = 4000  # kept of what the engine and the patch tools say
_CHUNK_BYTES = 1 << 20
_SECONDS_TO_END = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchRun:
    """One patch to be evaluated."""

    instance_id: str
    image: str
    evaluation: str  # the script's text
    patch: str
    setting: str  # one of SETTINGS: engine and network

    @property
    def digest(self) -> str:
        """What the run is known by."""
        return digest(self.image, self.evaluation, self.patch, self.setting)

    def log_path(self, logs: Path) -> Path:
        """Returns where the evaluation's output is kept."""
        return logs / self.instance_id / f"{self.digest}.log"

    def end_path(self, logs: Path) -> Path:
        """Returns the file that is there once the run is finished."""
        return self.log_path(logs).with_suffix(".json")


def run_patches(
    runs: Sequence[PatchRun],
    engine: Engine,
    logs: Path,
    *,
    workers: int,
    seconds: float,
    max_log_bytes: int = MAX_LOG_BYTES,
) -> Counter[str]:
    """Runs what is not there yet; returns how many were there, ran, or failed with the engine.

    `seconds` bounds each container's life, `max_log_bytes` what it may print.
    """
    bounds = _Bounds(seconds=seconds, log_bytes=max_log_bytes)
    left = [run for run in runs if not _is_finished(run, logs, seconds)]
    counts = Counter(there=len(runs) - len(left))
    stop = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_run, run, engine, logs, bounds, stop) for run in left]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                end = future.result()
                counts[end] += 1
                logger.info("swe run: %d of %d, %s", number, len(left), dict(counts))
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
    return counts


def _is_finished(run: PatchRun, logs: Path, seconds: float) -> bool:
    """Returns whether a run is there that as many seconds would not change."""
    path = run.end_path(logs)
    try:
        end = json.loads(path.read_bytes())
        return not end["is_timed_out"] or end["max_seconds"] >= seconds
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error!r}; remove it, and run the same again") from error


def _run(run: PatchRun, engine: Engine, logs: Path, bounds: _Bounds, stop: threading.Event) -> str:
    log = run.log_path(logs)
    log.parent.mkdir(parents=True, exist_ok=True)
    # Beside the logs: the engine's daemon may see no folder of this process's own.
    with tempfile.TemporaryDirectory(dir=log.parent, prefix=".run-") as name:
        folder = Path(name).resolve()
        given = folder / "given"
        given.mkdir(mode=0o755)
        folder.chmod(0o755)
        (given / PATCH_FILE).write_bytes(run.patch.encode("utf-8", "surrogatepass"))
        (given / EVALUATION_FILE).write_bytes(run.evaluation.encode("utf-8", "surrogatepass"))
        (given / SCRIPT_FILE).write_text(SCRIPT)
        started = time.monotonic()
        container = f"mira-swe-{secrets.token_hex(8)}"
        words = engine.run_words(run.image, given, container)
        ended = _watched(words, engine.kill_words(container), folder / "log", bounds, stop)
        said = (folder / "log.said").read_bytes()[-_SAID_BYTES:].decode(errors="replace")
        if stop.is_set():
            return "stopped"
        if not ended.is_stopped_here and engine.is_engines_failure(ended.exit_code):
            shown = ascii(said[-300:])
            logger.error(
                "%s: %s failed (%d): %s", run.instance_id, engine.name, ended.exit_code, shown
            )
            return "failed"
        if ended.why:
            with (folder / "log").open("ab") as file:
                file.write(f"\n\n{ended.why}\n".encode())
        # What says that a run is finished must not stand beside the log of another one.
        run.end_path(logs).unlink(missing_ok=True)
        os.replace(folder / "log", log)
        content: dict[str, Any] = {
            "instance_id": run.instance_id,
            "engine": engine.name,
            "has_network": engine.has_network,
            "image": run.image,
            "exit_code": ended.exit_code,
            "is_patch_refused": ended.exit_code == PATCH_REFUSED,
            "is_timed_out": ended.is_timed_out,
            "why": ended.why,
            "max_seconds": bounds.seconds,
            "seconds": round(time.monotonic() - started, 1),
            "said": said,
        }
        keep_json(run.end_path(logs), content)
    return "ran"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bounds:
    seconds: float
    log_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ended:
    exit_code: int
    is_timed_out: bool = False
    why: str = ""  # why it was stopped here

    @property
    def is_stopped_here(self) -> bool:
        return bool(self.why)


def _watched(
    words: Sequence[str],
    kill_words: Sequence[str] | None,
    log: Path,
    bounds: _Bounds,
    stop: threading.Event,
) -> _Ended:
    """Runs a command with its output in a file, and ends it when time or room is up."""
    with log.open("wb") as out, log.with_name(log.name + ".said").open("wb") as said:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ValueError(
                f"{words[0]} is not on PATH; install it, or choose another --engine"
            ) from error
        assert process.stdout is not None
        assert process.stderr is not None
        full = threading.Event()
        readers = [
            threading.Thread(target=_copied, args=(process.stdout, out, bounds.log_bytes, full)),
            threading.Thread(target=_copied, args=(process.stderr, said, bounds.log_bytes, None)),
        ]
        for reader in readers:
            reader.start()
        why = _awaited(process, bounds.seconds, stop, full)
        if why:
            _end(process, kill_words)
        for reader in readers:
            reader.join()
        # Words that the official grader's own logs end in.
        is_timed_out = why == "time"
        told = {
            "time": f"Timeout error: {bounds.seconds:g} seconds exceeded.",
            "room": f"Stopped: more than {bounds.log_bytes:,} bytes of output.",
        }
        return _Ended(exit_code=process.wait(), is_timed_out=is_timed_out, why=told.get(why, why))


def _awaited(
    process: subprocess.Popen[bytes], seconds: float, stop: threading.Event, full: threading.Event
) -> str:
    """Returns why the process must be ended: "time", "room" or "stop"; "" where it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            return "room" if full.is_set() else ""
        if stop.is_set():
            return "stop"
        if full.is_set():
            return "room"
        if time.monotonic() > deadline:
            return "time"


def _end(process: subprocess.Popen[bytes], kill_words: Sequence[str] | None) -> None:
    """Ends the container, which outlives the process that began it, and then that process."""
    if kill_words is not None:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                kill_words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _copied(
    source: IO[bytes], target: IO[bytes], max_bytes: int, full: threading.Event | None
) -> None:
    """Copies up to a number of bytes as UTF-8; the rest is read and thrown away."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    left = max_bytes
    with source:
        while chunk := os.read(source.fileno(), _CHUNK_BYTES):
            target.write(decoder.decode(chunk[:left]).encode())
            left = max(0, left - len(chunk))
            if left == 0 and full is not None:
                full.set()
    target.write(decoder.decode(b"", final=True).encode())
