"""How the head of a job on several nodes tells the others what is next, and how it all ended.

A file of the job's folder, which all nodes see. The others have nothing else to go by: who starts a
training before the head has prepared it waits in a connection that times out, and srun takes the
highest exit code of all nodes for that of the job, so no node may end with one of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import orjson

from mira_megatron.atomic_files import write_json
from mira_megatron.launchers.job_place import JobPlace

_POLL_SECONDS = 1.0


class NodeTurns:
    """What is to be done next by all nodes of one attempt, by number and name."""

    def __init__(self, folder: Path, place: JobPlace) -> None:
        self._path = folder / f"turn-{place.element}.json"
        self._place = place
        self._number = 0

    def give(self, name: str | None) -> None:
        """Says what is next; None says that nothing is. Only the head gives."""
        self._write(name, None)

    def end(self, code: int) -> None:
        """Says that nothing is next, and which exit code all nodes end with. Only the head does."""
        self._write(None, code)

    def wait(
        self, what_is_over: Callable[[], Exception | None], *, poll_seconds: float = _POLL_SECONDS
    ) -> str | None:
        """Returns what is next once the head has said so, None where nothing is.

        Raises what `what_is_over` returns: why there is no use in waiting any longer.
        """
        while True:
            problem = what_is_over()  # looked at first: what comes to its end may do so noisily
            turn = self._read()
            if turn and turn["number"] > self._number:
                self._number = turn["number"]
                return cast("str | None", turn["name"])
            if problem is not None:
                raise problem
            time.sleep(poll_seconds)

    def wait_for_end(self, *, poll_seconds: float = _POLL_SECONDS) -> int:
        """Returns the head's exit code once it has one.

        However long that takes: the head may be saving, and who ended before it would have the step
        ended. A head that is killed says nothing; then srun ends the step (`--wait`).
        """
        while (code := self.end_code) is None:
            time.sleep(poll_seconds)
        return code

    @property
    def end_code(self) -> int | None:
        """Returns the exit code that the head has ended this attempt with, None before."""
        return cast("int | None", self._read().get("code"))

    def _write(self, name: str | None, code: int | None) -> None:
        if self._place.num_nodes == 1:
            return
        self._number += 1
        turn = {"attempt": self._place.attempt, "number": self._number, "name": name, "code": code}
        write_json(self._path, turn)

    def _read(self) -> dict[str, Any]:
        """Returns the last turn of this attempt, {} before the first."""
        try:
            turn: dict[str, Any] = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        return turn if turn.get("attempt") == self._place.attempt else {}
