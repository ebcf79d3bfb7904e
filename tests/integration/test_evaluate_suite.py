"""The whole shipped suite by `mira evaluate` as a process: a real vLLM server, kills, faults."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eval_endpoint import MODEL, EvalEndpoint, Fault, serving
from sql_files import readable_folder
from tiny_chat_model import write_tiny_chat_model
from vllm_server import VllmServer, running_vllm
from whole_suite import (
    ENTRIES,
    NUM_ANSWERS,
    SCORES,
    answer_to,
    results_of,
    write_whole_suite,
)

from mira_megatron.eval.generation.generations import read_generations
from mira_megatron.eval.sandbox.best import best_sandbox

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[2].parent / "shared/data/eval"
NUM_TOKENS = 48
IN_FLIGHT = 4
NUM_SQL_PROTOCOLS = 6  # beside those that categories take
FAULTS: tuple[Fault, ...] = ("500", "reset", "cut", "empty", "bad_json", "hang")


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


@pytest.fixture(scope="module")
def small_suite() -> Iterator[Path]:
    """The suite over hand-made tasks alone, whose scores are known."""
    with readable_folder() as folder:
        yield write_whole_suite(folder)


@pytest.fixture(scope="module")
def served_suite() -> Iterator[Path]:
    """The suite with real tasks of MBPP and MultiPL-E, where they are there, and short answers."""
    with readable_folder() as folder:
        real_data = DATA if DATA.exists() else None
        yield write_whole_suite(folder, real_data=real_data, max_tokens=NUM_TOKENS)


@pytest.fixture(scope="module")
def undisturbed(small_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation that those with faults and kills are compared with."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    with serving(EvalEndpoint(answer_of=answer_to)) as endpoint:
        subprocess.run(asking(small_suite, endpoint, output), check=True)
        assert len(endpoint.bodies) == NUM_ANSWERS
    return output


def mira(*words: str | Path | int) -> list[str]:
    return [sys.executable, "-m", "mira_megatron.cli", *map(str, words)]


def asking(
    suite: Path, endpoint: EvalEndpoint, output: Path, *more: str | int, style: str = "completion"
) -> list[str]:
    words = ("--endpoint", endpoint.url, "--model", MODEL, "--style", style, "--output", output)
    return mira("evaluate", suite, *words, "--max-in-flight", IN_FLIGHT, "--workers", 2, *more)


def asking_vllm(suite: Path, server: VllmServer, output: Path, style: str) -> list[str]:
    words = ("--endpoint", server.endpoint, "--model", server.model, "--style", style)
    limits = ("--limit", 2, "--max-in-flight", IN_FLIGHT, "--workers", 2)
    return mira("evaluate", suite, *words, "--output", output, *limits)


def killed_once(command: list[str], is_time: Callable[[], bool]) -> None:
    """Runs a command and kills it with -9 as soon as it is time."""
    process = subprocess.Popen(command)
    while not is_time():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def verdicts_in(output: Path) -> Counter[tuple[str, bytes]]:
    found: Counter[tuple[str, bytes]] = Counter()
    for path in output.glob("*/verdicts.jsonl"):
        found.update((path.parent.name, line) for line in path.read_bytes().splitlines())
    return found


def answers_in(output: Path) -> Counter[tuple[str, bytes]]:
    found: Counter[tuple[str, bytes]] = Counter()
    for path in output.glob("*/generations.jsonl"):
        found.update((path.parent.name, line) for line in path.read_bytes().splitlines())
    return found


def test_whole_suite_comes_to_the_scores_of_its_answers(
    small_suite: Path, undisturbed: Path, tmp_path: Path
) -> None:
    chat = tmp_path / "chat"
    with serving(EvalEndpoint(answer_of=answer_to)) as endpoint:
        subprocess.run(asking(small_suite, endpoint, chat, style="chat"), check=True)
    for output in (undisturbed, chat):
        results = results_of(output)
        assert set(results) == set(ENTRIES)
        scores = {
            name: score["pass@1"]
            for fields in results.values()
            for name, score in fields["scores"].items()
        }
        assert {name: scores[name] for name in SCORES} == SCORES
        assert len(scores) == len(SCORES) + NUM_SQL_PROTOCOLS


def test_checkpoints_of_a_real_server_are_compared_only_where_they_are_alike(
    server: VllmServer, served_suite: Path, tmp_path: Path
) -> None:
    outputs = {style: tmp_path / style for style in ("completion", "chat")}
    for style, output in outputs.items():
        subprocess.run(asking_vllm(served_suite, server, output, style), check=True)
        results = results_of(output)
        assert set(results) == set(ENTRIES)
        for name, fields in results.items():
            num_samples = 16 if name == "livecodebench" else None
            for score in fields["scores"].values():
                assert score["num_samples"] == (num_samples or score["num_tasks"])
                assert "infra" not in score["statuses"]
            generations = read_generations(output / name / "generations.jsonl").values()
            assert all(0 < (each.num_output_tokens or 0) <= NUM_TOKENS for each in generations)
    words = mira("compare", *outputs.values(), "--output", tmp_path / "comparison")
    refused = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
    assert refused.returncode == 2
    assert "style is completion: completion, chat: chat" in refused.stderr
    assert not (tmp_path / "comparison").exists()
    subprocess.run([*words, "--allow-unlike"], check=True)
    compared = json.loads((tmp_path / "comparison/comparison.json").read_bytes())
    assert [arm["label"] for arm in compared["arms"]] == ["completion", "chat"]


def test_killed_evaluation_of_a_real_server_goes_on_where_it_was(
    server: VllmServer, served_suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    command = asking_vllm(served_suite, server, output, "completion")
    num_before = server.metric("vllm:request_success_total")
    killed_once(command, lambda: num_lines(output / "livecodebench/generations.jsonl") > 2)
    kept = answers_in(output)
    killed_once(command, lambda: num_lines(output / "livecodebench/verdicts.jsonl") > 0)
    assert num_lines(output / "bird/generations.jsonl") == 2  # all were there when it graded
    assert kept < answers_in(output)
    answers, verdicts = answers_in(output), verdicts_in(output)
    num_asked = server.metric("vllm:request_success_total") - num_before
    assert answers.total() <= num_asked <= answers.total() + IN_FLIGHT
    subprocess.run(command, check=True)
    assert answers_in(output) == answers
    assert verdicts < verdicts_in(output)
    again = tmp_path / "again"  # the same answers, graded undisturbed and without what was kept
    for name in ENTRIES:
        (again / name).mkdir(parents=True)
        for place in ("suite.json", f"{name}/generations.jsonl"):
            (again / place).write_bytes((output / place).read_bytes())
    grading = mira("evaluate", served_suite, "--output", again, "--limit", 2, "--grade-only")
    subprocess.run(grading, check=True)
    assert results_of(again) == results_of(output)
    assert verdicts_in(again) == verdicts_in(output)


@pytest.mark.parametrize("num_answered", [3, 12, NUM_ANSWERS - 1])
def test_evaluation_killed_while_it_asks_asks_nothing_twice_but_what_was_in_flight(
    small_suite: Path, undisturbed: Path, tmp_path: Path, num_answered: int
) -> None:
    output = tmp_path / "out"
    is_killed, numbers = threading.Event(), itertools.count()

    def answer_until_killed(asked: str) -> str:
        if next(numbers) >= num_answered:
            is_killed.wait(60)
        return answer_to(asked)

    with serving(EvalEndpoint(answer_of=answer_until_killed)) as endpoint:
        command = asking(small_suite, endpoint, output)
        killed_once(command, lambda: endpoint.num_answered >= num_answered)
        is_killed.set()
        kept = answers_in(output)
        subprocess.run(command, check=True)
        asked = Counter(json.dumps(body, sort_keys=True) for body in endpoint.bodies)
    assert len(asked) == NUM_ANSWERS
    assert asked.total() - len(asked) <= IN_FLIGHT
    assert kept < answers_in(output) == answers_in(undisturbed)
    assert results_of(output) == results_of(undisturbed)
    assert verdicts_in(output) == verdicts_in(undisturbed)


@pytest.mark.parametrize("entry", ["mbpp", "livecodebench", "multipl_e_java", "bird"])
def test_evaluation_killed_while_it_grades_gives_the_same_results(
    small_suite: Path, undisturbed: Path, tmp_path: Path, entry: str
) -> None:
    output = tmp_path / "out"
    with serving(EvalEndpoint(answer_of=answer_to)) as endpoint:
        command = asking(small_suite, endpoint, output)
        killed_once(command, lambda: num_lines(output / entry / "verdicts.jsonl") > 0)
        before = verdicts_in(output)
        subprocess.run(command, check=True)
        assert len(endpoint.bodies) == NUM_ANSWERS
    assert before <= verdicts_in(output) == verdicts_in(undisturbed)
    assert results_of(output) == results_of(undisturbed)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_every_first_request_changes_no_answer(
    small_suite: Path, undisturbed: Path, tmp_path: Path, fault: Fault
) -> None:
    output = tmp_path / "out"
    with serving(EvalEndpoint(answer_of=answer_to, first=fault)) as endpoint:
        more = ("--generate-only", "--timeout", 1)
        subprocess.run(asking(small_suite, endpoint, output, *more), check=True)
        assert len(endpoint.bodies) >= 2 * NUM_ANSWERS
    assert answers_in(output) == answers_in(undisturbed)


def test_busy_server_is_asked_again_for_every_benchmark(
    small_suite: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with serving(EvalEndpoint(answer_of=answer_to)) as endpoint:
        # Every other request is refused with Retry-After; after refusals alone pauses would grow.
        endpoint.faults = deque[Fault | None](["503", None] * NUM_ANSWERS)
        subprocess.run(asking(small_suite, endpoint, output, "--generate-only"), check=True)
        assert len(endpoint.bodies) == 2 * NUM_ANSWERS
    assert answers_in(output) == answers_in(undisturbed)


def test_endpoint_that_answers_nonsense_fails_every_benchmark_and_is_mended_by_the_same_command(
    small_suite: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with serving(EvalEndpoint(answer_of=answer_to, every="bad_json")) as endpoint:
        endpoint.faults = deque([None] * 3)  # MBPP's, and one of BigCodeBench's
        command = asking(small_suite, endpoint, output)
        failed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        assert failed.returncode == 2
        assert f"failed: {', '.join(ENTRIES[1:])}\n" in failed.stdout
        endpoint.every = None
        endpoint.bodies.clear()
        subprocess.run(command, check=True)
        assert len(endpoint.bodies) == NUM_ANSWERS - 3
    assert answers_in(output) == answers_in(undisturbed)
    assert results_of(output) == results_of(undisturbed)
