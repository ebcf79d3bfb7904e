"""`mira evaluate` as a process: killed and started again, and asking a real vLLM server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from eval_endpoint import MODEL, EvalEndpoint, serving
from eval_files import ADD, write_mbpp
from tiny_chat_model import write_tiny_chat_model
from vllm_server import VllmServer, running_vllm

from mira_megatron.eval.generation.generations import read_generations
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.stop_signals import INTERRUPTED

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data/eval"
SUITE = ROOT / "eval/suites/mira9.yaml"
NUM_TASKS = 30
NUM_BEFORE_STOP = 16
RIGHT = "def add(a, b):\n    return a + b\n"
NAMES = ("mbpp", "multipl_e_js", "multipl_e_php", "multipl_e_py", "multipl_e_sh")


@pytest.fixture(autouse=True)
def _a_sandbox() -> None:
    try:
        best_sandbox()
    except ValueError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = tmp_path_factory.mktemp("vllm")
    model = write_tiny_chat_model(folder / "tiny-chat")
    with running_vllm(model, max_model_len=4096, log_path=folder / "vllm.log") as running:
        yield running


def evaluate(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "mira_megatron.cli", "evaluate", *map(str, words)]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[EvalEndpoint, list[str]]]:
    """A suite of 60 answers, the endpoint that gives them, and the words that ask for them."""
    tasks = [
        {**ADD, "task_id": f"Mbpp/{1000 + number}", "prompt": f'"""\nAdd {number}.\n"""\n'}
        for number in range(NUM_TASKS)
    ]
    write_mbpp(tmp_path / "mbpp.jsonl", *tasks)
    fields = {"kind": "mbpp", "category": "c", "file": "mbpp.jsonl", "protocol": "p"}
    suite = {
        "sampling": {"hot": {"temperature": 0.8, "num_samples": 2}},
        "benchmarks": {"mbpp": {**fields, "sampling": "hot"}},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    with serving(EvalEndpoint(answer_of=lambda asked: RIGHT)) as endpoint:
        words = ("--endpoint", endpoint.url, "--model", MODEL, "--style", "completion")
        paths = ("--output", tmp_path / "out", "--data-folder", tmp_path)
        yield endpoint, evaluate(tmp_path / "suite.yaml", *words, *paths, "--max-in-flight", "4")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_evaluation_asks_for_what_is_left_alone(
    command: tuple[EvalEndpoint, list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    endpoint, words = command
    generations = tmp_path / "out/mbpp/generations.jsonl"
    process = subprocess.Popen(words)

    def stop(num_answered: int) -> None:
        if num_answered == NUM_BEFORE_STOP:
            process.send_signal(number)

    endpoint.after = stop
    assert process.wait(120) == (-9 if number == signal.SIGKILL else INTERRUPTED)
    kept = set(read_generations(generations))
    num_asked = len(endpoint.bodies)
    assert NUM_BEFORE_STOP - 8 <= len(kept) <= num_asked < 2 * NUM_TASKS
    if number == signal.SIGINT:  # what was in flight was waited for
        assert len(kept) == num_asked
    endpoint.bodies.clear()
    subprocess.run(words, check=True)
    assert len(endpoint.bodies) == 2 * NUM_TASKS - len(kept)
    assert kept < set(read_generations(generations))
    assert len(generations.read_bytes().splitlines()) == 2 * NUM_TASKS
    score = _results(tmp_path / "out", "mbpp")["scores"]["mbpp"]
    assert (score["pass@1"], score["num_samples"]) == (100.0, 2 * NUM_TASKS)


@pytest.mark.parametrize("style", ["completion", "chat", "prefilled"])
def test_a_real_server_is_asked_and_its_answers_are_graded(
    server: VllmServer, tmp_path: Path, style: str
) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there: no tasks")
    suite = yaml.safe_load(SUITE.read_text())
    suite["sampling"]["greedy"] |= {"max_tokens": 48}
    suite["benchmarks"]["mbpp"]["file"] = "mbpp_plus/MbppPlus-v0.1.0.jsonl"  # that is there
    if style == "prefilled":
        suite["benchmarks"]["mbpp"]["options"] = {"prefill": True}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    names = NAMES[:1] if style == "prefilled" else NAMES
    words = [word for name in names for word in ("--benchmark", name)]
    words += ["--endpoint", server.endpoint, "--model", server.model, "--limit", "2"]
    words += ["--style", "completion" if style == "completion" else "chat"]
    output = tmp_path / "out"
    subprocess.run(evaluate(path, *words, "--output", output, "--data-folder", DATA), check=True)
    written = json.loads((output / "suite.json").read_bytes())
    assert written["served"][0]["model"] == server.model
    assert written["served"][0]["max_model_len"] == 4096
    for name in names:
        generations = list(read_generations(output / name / "generations.jsonl").values())
        assert len(generations) == 2
        for each in generations:
            assert each.text or each.reason == "empty"  # random weights may say nothing that prints
            assert each.num_output_tokens is not None
            assert 0 < each.num_output_tokens <= 48
            assert each.finish_reason in ("stop", "length")
        if style == "prefilled":
            assert all(str(each.text).startswith("Below is a Python") for each in generations)
        for score in _results(output, name)["scores"].values():
            assert score["num_samples"] == 2
            assert "infra" not in score["statuses"]


def _results(output: Path, name: str) -> Any:
    return json.loads((output / name / "results.json").read_bytes())
