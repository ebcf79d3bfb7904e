from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor

import pytest

from mira_megatron.stop_signals import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    heeding_sigterm,
    holding_back_sigterm,
)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_command_that_is_terminated_between_two_steps_ends_there() -> None:
    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        with pytest.raises(Terminated):
            _terminate()
        return INTERRUPTED

    assert command(None) == TERMINATED == 143


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_command_that_asks_is_cancelled_once_however_often_it_is_terminated(
    first: signal.Signals,
) -> None:
    async def ask() -> None:
        try:
            os.kill(os.getpid(), first)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            _terminate()
            await asyncio.sleep(0)
            drained.append(True)
            raise

    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(ask())
        return INTERRUPTED

    drained: list[bool] = []
    assert (command(None), drained) == (TERMINATED, [True])


def test_command_that_is_interrupted_or_done_keeps_its_exit_code() -> None:
    @heeding_sigterm
    def interrupted(argv: Sequence[str] | None) -> int:
        return INTERRUPTED

    @heeding_sigterm
    def ended(argv: Sequence[str] | None) -> int:
        with pytest.raises(Terminated):
            _terminate()
        return 0

    assert (interrupted(None), ended(None)) == (130, 0)


def test_workers_that_are_terminated_with_their_command_are_no_error_of_it() -> None:
    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        if argv:
            with pytest.raises(Terminated):
                _terminate()
        raise BrokenExecutor

    assert command(["terminated"]) == TERMINATED
    with pytest.raises(BrokenExecutor):
        command(None)


@pytest.mark.parametrize("on_interrupt", [signal.SIG_IGN, signal.default_int_handler])
def test_handlers_are_as_before_afterwards(on_interrupt: signal.Handlers) -> None:
    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        seen.append(signal.getsignal(signal.SIGINT))
        return 0

    seen: list[object] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    first = signal.signal(signal.SIGINT, on_interrupt)
    try:
        before = [signal.getsignal(number) for number in numbers]
        command(None)
        assert [signal.getsignal(number) for number in numbers] == before
    finally:
        signal.signal(signal.SIGINT, first)
    assert seen == [signal.default_int_handler]


def test_command_in_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        seen.append(signal.getsignal(signal.SIGTERM))
        return INTERRUPTED

    thread = threading.Thread(target=lambda: seen.append(command(None)))
    thread.start()
    thread.join()
    assert seen == [before, INTERRUPTED]


def test_sigterm_that_is_held_back_acts_at_the_end_of_the_block() -> None:
    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        steps = []
        try:
            with holding_back_sigterm():
                _terminate()
                steps.append("to the end")
        except Terminated:
            steps.append("ended")
        assert steps == ["to the end", "ended"]
        return INTERRUPTED

    assert command(None) == TERMINATED


def test_sigterm_that_did_not_come_while_held_back_acts_as_before() -> None:
    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        with holding_back_sigterm():
            pass
        with pytest.raises(Terminated):
            _terminate()
        return INTERRUPTED

    assert command(None) == TERMINATED
