"""The servers of a job: started, waited for, watched while the stage asks them, and stopped.

Their words go to server-ELEMENT-NODE-NUMBER.txt in the job's folder, each attempt's after those
before. A server that ends, or is not ready in time, fails the attempt with its last lines.
"""

from __future__ import annotations

import json
import logging
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from mira_megatron.config import Recipe
from mira_megatron.launchers.job_children import (
    POLL_SECONDS,
    AttemptFailed,
    AttemptOver,
    JobChildren,
    Stopped,
)
from mira_megatron.launchers.job_file import JobFile, Server
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.launchers.last_lines import last_lines
from mira_megatron.launchers.training_ranks import exit_words

logger = logging.getLogger(__name__)

# Stage -> section of the recipe that says whom it asks, unless its own does.
_ASKED = {
    "group": "embedder",
    "anchor": "embedder",
    "discover": "teacher",
    "label": "teacher",
    "reliability": "score",
    "score": "score",
}
_NOT_READY = 124  # as timeout(1) has it
_NUM_LINES = 10
_HEALTH_SECONDS = 2.0  # between two looks
_ANSWER_SECONDS = 5.0  # for a server to say how it is
# Nothing between a job and its servers: a proxy of the site knows nobody called 127.0.0.1.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class _Running:
    """A server of this node that was started."""

    process: subprocess.Popen[bytes]
    log: Path
    start: int  # where its words begin in the log


def _alone() -> None:
    """Does what is to be done where no other node is looked at: nothing."""


class Servers:
    """The running servers of one node."""

    def __init__(
        self,
        server: Server,
        running: Sequence[_Running],
        children: JobChildren,
        health_urls: Sequence[str],
        check_others: Callable[[], None],
    ) -> None:
        self._server = server
        self._running = running
        self._children = children
        self._health_urls = health_urls
        self._check_others = check_others

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """Returns the processes of this node, in the order of the commands."""
        return [each.process for each in self._running]

    def check(self) -> None:
        """Raises AttemptFailed where one of them has ended: none is meant to.

        Raises AttemptOver where another node has said so of its own.
        """
        for each in self._running:
            code = each.process.poll()
            if code is not None:
                raise AttemptFailed(code or 1, f"a server {exit_words(code)}{_last_words(each)}")
        self._check_others()

    def wait_until_ready(self, *, poll_seconds: float = _HEALTH_SECONDS) -> None:
        """Returns when every health address answers 200.

        Raises AttemptFailed where one does not within the server's `ready_seconds`, or a server
        ends before; Stopped where the job is told to end.
        """
        begun = time.monotonic()
        waiting = list(self._health_urls)
        while waiting:
            if self._children.is_stopping:
                raise Stopped
            self.check()
            problem = health_problem(waiting[0])
            if problem is None:
                logger.info("%s is ready after %.0f s", waiting[0], time.monotonic() - begun)
                del waiting[0]
                continue
            if time.monotonic() - begun > self._server.ready_seconds:
                words = "".join(map(_last_words, self._running))
                raise AttemptFailed(
                    _NOT_READY,
                    f"{waiting[0]} was not ready within ready_seconds="
                    f"{self._server.ready_seconds} ({problem}){words}",
                )
            time.sleep(poll_seconds)

    def watch(self, stage: subprocess.Popen[bytes]) -> int:
        """Returns the exit code of the stage that asks them; AttemptFailed where a server ends.

        The stage is then told to end, and ended `stop_seconds` later: it may wait for an answer
        that cannot come.
        """
        while (code := stage.poll()) is None:
            try:
                self.check()
            except (AttemptFailed, AttemptOver):
                self._children.end([stage], seconds=self._server.stop_seconds)
                raise
            time.sleep(POLL_SECONDS)
        self._children.forget(stage)
        if code:
            self.check()  # a stage whose server is gone says that its user should look at it
        return code


@contextmanager
def running_servers(
    job: JobFile,
    place: JobPlace,
    children: JobChildren,
    check_others: Callable[[], None] = _alone,
) -> Iterator[Servers]:
    """Starts the servers of this node and ends them, and all they started, with the block.

    `check_others` raises AttemptOver where another node has ended the attempt. Raises AttemptFailed
    where something else answers for them already: it may be another model.
    """
    server = job.server
    assert server is not None, job.path
    health_urls = placed_words(server.health_urls, place)
    for url in health_urls if place.is_head else ():
        if health_problem(url) is None:
            raise AttemptFailed(
                _NOT_READY,
                f"{url} answers before the server is started: another job's server may have the "
                "port. Choose another one in the cluster file, or ask for whole nodes",
            )
    running: list[_Running] = []
    try:
        for number, command in enumerate(server.commands):
            log = job.folder / f"server-{place.element}-{place.node}-{number}.txt"
            with log.open("ab") as output:
                start = output.tell()
                process = children.start(
                    placed_words(command, place), output=output, is_server=True
                )
            running.append(_Running(process, log, start))
            logger.info("server %d of node %d starts, see %s", number, place.node, log)
        yield Servers(server, running, children, health_urls, check_others)
    finally:
        children.end([each.process for each in running], seconds=server.stop_seconds)


def placed_words(command: Sequence[str], place: JobPlace) -> list[str]:
    """Returns a server's words with {node}, {nodes} and {head} put in; other braces stay."""
    values = {"node": str(place.node), "nodes": str(place.num_nodes), "head": place.head}
    words = list(command)
    for name, value in values.items():
        words = [word.replace(f"{{{name}}}", value) for word in words]
    return words


def endpoint_words(job: JobFile, recipe: Recipe, place: JobPlace) -> list[str]:
    """Returns the override by which the stage asks the job's servers.

    Raises ValueError for a stage that asks none.
    """
    assert job.server is not None, job.path
    urls = []
    for health in placed_words(job.server.health_urls, place):
        parts = urlsplit(health)
        url = f"{parts.scheme}://{parts.netloc}/v1"
        if url not in urls:
            urls.append(url)
    own = recipe.values.get(job.stage)
    is_own = isinstance(own, Mapping) and "endpoints" in own
    section = job.stage if is_own else _ASKED.get(job.stage)
    if section is None:
        raise ValueError(f"{job.path}: stage {job.stage} asks no server; {', '.join(_ASKED)} do")
    return [f"{section}.endpoints={json.dumps(urls)}"]


def health_problem(url: str) -> str | None:
    """Returns None for an address that answers 200, else what it does instead."""
    try:
        with _OPENER.open(url, timeout=_ANSWER_SECONDS) as answer:
            return None if answer.status == 200 else f"it answers {answer.status}"
    except urllib.error.HTTPError as error:
        return f"it answers {error.code}"
    except (OSError, HTTPException) as error:
        return f"it does not answer: {getattr(error, 'reason', None) or error}"


def _last_words(running: _Running) -> str:
    lines = last_lines(running.log, _NUM_LINES, start=running.start)
    if not lines:
        return f"; it wrote nothing to {running.log}"
    return "\n".join([f". Last of {running.log}:", *(f"    {line}" for line in lines)])
