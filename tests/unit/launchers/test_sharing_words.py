"""Words of the command line on sharing, what a worker needs, and one that is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mira_megatron.cli_parser import command_parser
from mira_megatron.cli_sharing import check_sharing
from mira_megatron.config import Recipe
from mira_megatron.launchers.worker_gpus import gpus_of_a_worker

pytest_plugins = ("judged_recipes",)


def checked(*words: str) -> None:
    check_sharing(command_parser().parse_args(["score", "mine.yaml", *words]), [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes=0"], "--processes 0 must be at least 1"),
        (["--gpus-per-task=1"], "is for the tasks of --ray"),
        (["--ray", "seed=3"], "--ray seed=3: this is no address"),
        (["--ray", "--share"], "leave out --share"),
        (["--ray", "--missing"], "leave out --share, --missing"),
        (["--ray", "--gpus-per-task=-1"], "--gpus-per-task -1 must be at least 0"),
    ],
)
def test_words_on_sharing_that_do_not_go_together_are_refused(
    words: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        checked(*words)


@pytest.mark.parametrize("words", [[], ["--ray"], ["--ray=a:1", "--processes=2"], ["--share"]])
def test_words_on_sharing_that_go_together_are_taken(words: list[str]) -> None:
    checked(*words)


@pytest.mark.parametrize("stage", ["label", "baseline", "score", "midtrain", "held-out"])
def test_stage_with_shared_units_takes_the_word_of_its_array(stage: str) -> None:
    assert command_parser().parse_args([stage, "mine.yaml", "--share"]).share


@pytest.mark.parametrize("before", ["pass", "signal.signal(2, signal.SIG_IGN)", "_block()"])
@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_worker_told_to_end_is_interrupted_whatever_it_inherited(
    before: str, told: signal.Signals, code: int
) -> None:
    script = f"""
import os, signal, time
from mira_megatron.stop_signals import INTERRUPTED, heeding_sigterm
def _block(): signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}})
@heeding_sigterm
def command():
    try:
        os.kill(os.getpid(), {int(told)})
        time.sleep(60)
    except KeyboardInterrupt:
        return INTERRUPTED
{before}
raise SystemExit(command())
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code


def test_child_does_not_outlive_a_parent_that_is_killed() -> None:
    script = """
import subprocess, time
from mira_megatron.launchers.end_with_parent import end_with_parent
print(subprocess.Popen(["sleep", "600"], preexec_fn=end_with_parent).pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = Path(f"/proc/{int(parent.stdout.readline())}/stat")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(3000):
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("the child goes on")


def test_worker_needs_the_gpus_that_its_largest_model_is_spread_over(
    judged_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    assert gpus_of_a_worker(judged_recipe()) == 0
    vllm = {"engine": "vllm", "model_path": str(tmp_path), "max_tokens": 64}
    vllm |= {"temperature": 0, "top_p": 1, "tensor_parallel_size": 4}
    (tmp_path / "config.json").write_text("{}")
    assert gpus_of_a_worker(judged_recipe(score=vllm)) == 4
