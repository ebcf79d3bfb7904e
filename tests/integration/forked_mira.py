"""`mira` in a process of its own that need not import anything: it is forked from one that has.

Importing scipy, torch and megatron takes seconds, and the drills start hundreds of commands. The
processes are those of `python -m mira_megatron.cli` otherwise: nothing but imports happened in the
server that they are forked from. All share its hash seed, so what must not depend on one is to be
run with smoke_runs.ended as well.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from threading import Lock

from mira_megatron.pipeline import STAGES

Main = Callable[[Sequence[str]], int]

_PRELOADED = (
    *("pytest", *STAGES.values()),
    *("mira_megatron.distill.run_distill", "mira_megatron.distill.sft_work"),
    *("mira_megatron.grouping.founding", "mira_megatron.report.page"),
    *("mira_megatron.report.summary", "mira_megatron.rubric.rubric_tool"),
    *("mira_megatron.training.run_midtrain", "torch.distributed.checkpoint"),
    *("mira_megatron.instruct.data_work", "mira_megatron.instruct.run_instruct_sft"),
)
# Processes look after each other when one is started or its end is asked for, which threads that
# each wait for one of their own must not do at once.
_LOCK = Lock()


def forked(main: Main, words: Sequence[str], timeout_seconds: float) -> tuple[int, bytes]:
    """Returns exit code and output of `main(words)` in a process group of its own.

    The code is that of the signal, negative, where the process was killed.
    """
    context = multiprocessing.get_context("forkserver")
    with tempfile.NamedTemporaryFile() as output:
        process = _started(context, main, words, Path(output.name))
        if not wait([process.sentinel], timeout_seconds):
            _kill_group(process)
        wait([process.sentinel])
        with _LOCK:
            exit_code = process.exitcode
        assert exit_code is not None
        if exit_code < 0:
            _kill_group(process)
        return exit_code, output.read()


def _started(
    context: ForkServerContext, main: Main, words: Sequence[str], output: Path
) -> ForkServerProcess:
    with _LOCK:
        context.set_forkserver_preload(list(_PRELOADED))
        process = context.Process(target=_run, args=(main, words, output))
        process.start()
    return process


def _run(main: Main, words: Sequence[str], output: Path) -> None:
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.exit(main(words))


def _kill_group(process: ForkServerProcess) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
