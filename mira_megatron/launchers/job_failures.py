"""How often a job has failed, so that it is not run again for ever.

Every process of a job writes a file of its own: failures-ELEMENT.json, but for the head's helpers
failures-ELEMENT-nodeN.json. An attempt that failed on several nodes is one failure. Those of an
earlier submission do not count: who submits again wants another try, and so does who runs a job by
hand. Being told to end is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from mira_megatron.atomic_files import write_json
from mira_megatron.launchers.job_place import JobPlace

_NUM_KEPT = 100  # of a file, for who looks: a job run by hand may fail for ever


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One attempt that failed on one node."""

    time: float  # seconds since 1970
    job: str  # as JobPlace.job
    restart: int
    node: int
    code: int  # exit code of what failed, -N where signal N ended it
    reason: str


class JobFailures:
    """The failures of one element of a job; `max_failures` may be followed by another attempt."""

    def __init__(
        self,
        folder: Path,
        place: JobPlace,
        max_failures: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._place = place
        self._max_failures = max_failures
        self._now = now

    def add(self, code: int, reason: str) -> None:
        """Notes that this attempt failed."""
        failure = Failure(
            time=self._now(),
            job=self._place.job,
            restart=self._place.restart,
            node=self._place.node,
            code=code,
            reason=reason,
        )
        suffix = "" if self._place.is_head else f"-node{self._place.node}"
        path = self._folder / f"failures-{self._place.element}{suffix}.json"
        kept = [*_read(path), failure][-_NUM_KEPT:]
        write_json(path, [asdict(each) for each in kept])

    def of_this_job(self) -> list[Failure]:
        """Returns the failures of this submission in the order of time, one for each attempt."""
        first: dict[object, Failure] = {}
        for failure in read_failures(self._folder, self._place.element):
            if failure.job == self._place.job:
                # Outside of SLURM every one is an attempt: none has a number.
                first.setdefault(failure.restart if failure.job else failure.time, failure)
        return list(first.values())

    @property
    def has_failed(self) -> bool:
        """Returns whether this attempt has failed on any node."""
        attempt = (self._place.job, self._place.restart)
        failures = read_failures(self._folder, self._place.element)
        return any((failure.job, failure.restart) == attempt for failure in failures)

    @property
    def are_too_many(self) -> bool:
        """Returns whether there is to be no further attempt; by hand there always may be one."""
        # Outside of SLURM nothing tells one submission from another, and nothing runs it again.
        return self._place.job != "" and len(self.of_this_job()) > self._max_failures


def read_failures(folder: Path, element: str = "*") -> list[Failure]:
    """Returns the failures of an element, or of all, on all nodes, in the order of time."""
    names = (f"failures-{element}.json", f"failures-{element}-node*.json")
    paths = {path for name in names for path in folder.glob(name)}
    found = [failure for path in sorted(paths) for failure in _read(path)]
    return sorted(found, key=lambda failure: failure.time)


def _read(path: Path) -> list[Failure]:
    try:
        return [Failure(**each) for each in orjson.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (orjson.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path}: not a list of failures ({error}). Delete it") from error
