from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_endpoint import MODEL, EvalEndpoint, serving
from eval_files import ADD, HALF, write_mbpp, write_multipl_e

from mira_megatron.cli import main
from mira_megatron.eval.sandbox.contract import Sandbox

SUITE = """
name: small
sampling: {greedy: {temperature: 0, source: us}}
benchmarks:
  mbpp: {kind: mbpp, category: code, file: mbpp.jsonl, protocol: p, sampling: greedy}
  multipl_e_py:
    {kind: multipl_e, language: py, category: e, file: py.jsonl, protocol: p, sampling: greedy}
"""
ANSWERS = {
    "Add two": "def add(a, b):\n    return a + b\nprint(add(1, 2))\n",
    "Half of": "def half(a):\n    return 0.5\n",
    "def add": "    return x + y\n",
}


def right(asked: str) -> str:
    return next(answer for words, answer in ANSWERS.items() if words in asked)


def right_in_a_block(asked: str) -> str:
    answer = right(asked)
    code = f"def add(x, y):\n{answer}" if answer.startswith(" ") else answer
    return f"<think>{asked}</think>Sure!\n```python\n{code}```\nDone."


@pytest.fixture
def endpoint() -> Iterator[EvalEndpoint]:
    with serving(EvalEndpoint(answer_of=right)) as served:
        yield served


@pytest.fixture
def words(tmp_path: Path, endpoint: EvalEndpoint) -> list[str]:
    (tmp_path / "suite.yaml").write_text(SUITE)
    write_mbpp(tmp_path / "mbpp.jsonl")
    write_multipl_e(tmp_path / "py.jsonl", "py")
    asked = ["--endpoint", endpoint.url, "--model", MODEL, "--style", "completion"]
    return [*graded_only(tmp_path)[:-1], *asked]


def graded_only(folder: Path) -> list[str]:
    paths = ["--output", str(folder / "out"), "--data-folder", str(folder)]
    return ["evaluate", str(folder / "suite.yaml"), *paths, "--grade-only"]


def results(folder: Path, name: str = "mbpp") -> Any:
    return json.loads((folder / "out" / name / "results.json").read_bytes())


def test_suite_is_generated_and_graded_once(
    sandbox: Sandbox,
    tmp_path: Path,
    words: list[str],
    endpoint: EvalEndpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words) == 0
    found = results(tmp_path)
    assert {name: score["pass@1"] for name, score in found["scores"].items()} == {
        "mbpp": 100.0,
        "mbpp_plus": 50.0,
    }
    assert found["asked"] == {
        "template": ["evalplus-completion/1"],
        "sampling": ["temperature=0.0 top_p=1.0 max_tokens=768"],
        "profile": ["greedy"],
    }
    assert found["is_subset"] is False
    controlled = found["scores"]["mbpp"]["controlled"]
    assert controlled == {"pass@1": 100.0, "num_tasks": 2, "failing": []}
    assert main([*words, "--no-controls"]) == 0
    assert results(tmp_path)["controls"] is None
    assert results(tmp_path, "multipl_e_py")["scores"]["multipl_e_py"]["pass@1"] == 100.0
    said = capsys.readouterr().out
    assert re.search(r"^ *mbpp_plus +50\.00 +2 +2 +0 +0 +0 +0 *$", said, re.MULTILINE)
    assert re.search(r"^ *code +75\.00 *$", said, re.MULTILINE)
    written = json.loads((tmp_path / "out/suite.json").read_bytes())
    assert (written["model"], written["style"]) == (MODEL, "completion")
    assert written["served"][0]["root"] == f"/weights/{MODEL}"
    assert written["benchmarks"]["mbpp"]["settings"]["source"] == "us"
    assert len(endpoint.bodies) == 3
    assert main(words) == 0
    assert len(endpoint.bodies) == 3
    assert results(tmp_path)["num_resumed"] == 2


def test_chat_answers_are_found_in_their_blocks(
    sandbox: Sandbox, tmp_path: Path, words: list[str], endpoint: EvalEndpoint
) -> None:
    endpoint.answer_of = right_in_a_block
    words[words.index("completion")] = "chat"

    assert main(words) == 0

    assert results(tmp_path)["scores"]["mbpp"]["pass@1"] == 100.0
    assert results(tmp_path, "multipl_e_py")["scores"]["multipl_e_py"]["pass@1"] == 100.0
    assert set(endpoint.paths) == {"/v1/chat/completions"}


def test_lost_answers_are_counted_apart(
    sandbox: Sandbox,
    tmp_path: Path,
    words: list[str],
    endpoint: EvalEndpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoint.answer_of = lambda asked: "def half(a):\n    x = (" if "Half" in asked else ""
    endpoint.finish_reason = "length"

    assert main([*words, "--benchmark", "mbpp"]) == 0

    score = results(tmp_path)["scores"]["mbpp"]
    assert score["statuses"] == {"truncated": 2}
    assert score["reasons"] == {"empty": 1, "unparsable": 1}
    assert "multipl_e_py" in capsys.readouterr().out.partition("missing")[2]


def test_truncated_answer_with_a_whole_program_is_graded(
    sandbox: Sandbox, tmp_path: Path, words: list[str], endpoint: EvalEndpoint
) -> None:
    endpoint.finish_reason = "length"
    endpoint.answer_of = lambda asked: f"{right(asked)}\ndef more("

    assert main([*words, "--benchmark", "mbpp"]) == 0

    assert results(tmp_path)["scores"]["mbpp"]["statuses"] == {"pass": 2}


def test_benchmark_without_data_does_not_lose_the_others(
    sandbox: Sandbox,
    tmp_path: Path,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "mbpp.jsonl").unlink()

    assert main(words) == 2

    assert results(tmp_path, "multipl_e_py")["scores"]["multipl_e_py"]["pass@1"] == 100.0
    assert "failed: mbpp\n" in capsys.readouterr().out


def test_answers_may_be_graded_later_and_elsewhere(
    sandbox: Sandbox, tmp_path: Path, words: list[str], endpoint: EvalEndpoint
) -> None:
    assert main([*words, "--generate-only"]) == 0
    assert not (tmp_path / "out/mbpp/results.json").exists()
    num_asked = len(endpoint.bodies)

    assert main(graded_only(tmp_path)) == 0

    assert results(tmp_path)["scores"]["mbpp_plus"]["pass@1"] == 50.0
    assert len(endpoint.bodies) == num_asked
    verdicts = (tmp_path / "out/mbpp/verdicts.jsonl").read_bytes()
    grade = ["grade", str(tmp_path / "suite.yaml"), "--benchmark", "mbpp"]
    generations = tmp_path / "out/mbpp/generations.jsonl"
    paths = ["--output", str(tmp_path / "again"), "--data-folder", str(tmp_path)]
    assert main([*grade, "--generations", str(generations), *paths]) == 0
    assert sorted((tmp_path / "again/verdicts.jsonl").read_bytes().splitlines()) == sorted(
        verdicts.splitlines()
    )
    generations.write_bytes(generations.read_bytes().splitlines(keepends=True)[0])
    assert main([*grade, "--generations", str(generations), *paths]) == 2
    assert main(graded_only(tmp_path)) == 2
    assert main([*grade, "--generations", str(generations), *paths, "--subset"]) == 0


def test_changed_prompt_is_asked_again_and_the_old_answer_is_not_graded(
    sandbox: Sandbox, tmp_path: Path, words: list[str], endpoint: EvalEndpoint
) -> None:
    words += ["--benchmark", "mbpp"]
    assert main(words) == 0
    changed = {**HALF, "prompt": '"""\nHalf of a number, please.\n"""\n'}
    write_mbpp(tmp_path / "mbpp.jsonl", ADD, changed)
    endpoint.answer_of = lambda asked: "def half(a):\n    return a / 2\n"

    assert main(words) == 0

    assert endpoint.asked[2:] == ['"""\nHalf of a number, please.\n"""\n']
    assert results(tmp_path)["scores"]["mbpp_plus"]["pass@1"] == 100.0
    lines = (tmp_path / "out/mbpp/generations.jsonl").read_text().splitlines()
    assert len(lines) == 3


def test_limit_asks_for_the_first_tasks_and_says_that_the_score_is_of_fewer(
    sandbox: Sandbox,
    tmp_path: Path,
    words: list[str],
    endpoint: EvalEndpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, "--benchmark", "mbpp", "--limit", "1"]) == 0
    assert results(tmp_path)["is_subset"] is True
    assert results(tmp_path)["scores"]["mbpp_plus"]["num_tasks"] == 1
    assert len(endpoint.bodies) == 1
    assert "of the first 1 tasks alone" in capsys.readouterr().out


def test_another_model_or_style_needs_another_folder(
    sandbox: Sandbox, tmp_path: Path, words: list[str], endpoint: EvalEndpoint
) -> None:
    assert main([*words, "--generate-only"]) == 0
    num_asked = len(endpoint.bodies)
    endpoint.models = (MODEL, "b")
    for old, new in ((MODEL, "b"), ("completion", "chat")):
        other = [new if word == old else word for word in words]
        assert main([*other, "--generate-only"]) == 2
    assert len(endpoint.bodies) == num_asked


def test_another_checkpoint_under_the_same_name_needs_another_folder(
    tmp_path: Path, words: list[str], endpoint: EvalEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--generate-only", "--limit", "1"]) == 0
    num_asked = len(endpoint.bodies)
    endpoint.weights = "/step-2000"

    assert main([*words, "--generate-only"]) == 2

    assert len(endpoint.bodies) == num_asked
    said = capsys.readouterr().err
    assert f"'/weights/{MODEL}', and it is served from '/step-2000/{MODEL}'" in said
    endpoint.weights = "/weights"
    assert main([*words, "--generate-only"]) == 0


def test_two_checkpoints_behind_one_name_are_refused(
    tmp_path: Path, words: list[str], endpoint: EvalEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(EvalEndpoint(weights="/step-2000")) as other:
        assert main([*words, "--endpoint", other.url, "--generate-only"]) == 2

    assert "from '/weights/a-model' and from '/step-2000/a-model'" in capsys.readouterr().err
    assert endpoint.bodies == other.bodies == []


def test_model_that_no_endpoint_serves_is_refused_before_anything_is_asked(
    tmp_path: Path,
    words: list[str],
    endpoint: EvalEndpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoint.models = ("other\x1b[2J",)
    assert main(words) == 2
    assert "serves other [2J, not 'a-model'" in capsys.readouterr().err
    assert endpoint.bodies == []
    endpoint.models = None  # a server without a list may have it
    assert main([*words, "--generate-only"]) == 0


def test_context_without_room_for_an_answer_fails_before_anything_is_asked(
    tmp_path: Path,
    words: list[str],
    endpoint: EvalEndpoint,
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint.max_model_len = 1024  # MultiPL-E's answers have as many

    assert main([*words, "--generate-only"]) == 2

    assert len(endpoint.bodies) == 2
    assert all(asked.startswith('"""\n') for asked in endpoint.asked)  # MBPP's


def test_benchmarks_asked_in_several_calls_keep_what_each_was_asked_with(
    tmp_path: Path, words: list[str], endpoint: EvalEndpoint
) -> None:
    words += ["--generate-only"]
    assert main([*words, "--benchmark", "mbpp"]) == 0
    suite = tmp_path / "suite.yaml"
    suite.write_text(suite.read_text().replace("source: us", "source: others"))
    assert main([*words, "--benchmark", "multipl_e_py", "--limit", "1"]) == 0
    found = json.loads((tmp_path / "out/suite.json").read_bytes())["benchmarks"]
    sources = {name: fields["settings"]["source"] for name, fields in found.items()}
    assert sources == {"mbpp": "us", "multipl_e_py": "others"}
    assert (found["mbpp"]["limit"], found["multipl_e_py"]["limit"]) == (None, 1)
    digests = {name: fields["suite"]["sha256"] for name, fields in found.items()}
    assert digests["multipl_e_py"] == hashlib.sha256(suite.read_bytes()).hexdigest()
    assert digests["mbpp"] != digests["multipl_e_py"]


def test_damaged_suite_file_is_named(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out/suite.json"
    path.parent.mkdir()
    for content in ("{", "[]", "{}", '{"model": "m", "style": "chat", "benchmarks": []}'):
        path.write_text(content)
        assert main([*words, "--generate-only"]) == 2
        assert f"{path}: not the suite.json" in capsys.readouterr().err


def test_endpoint_that_refuses_fails_the_benchmark_and_keeps_what_came(
    tmp_path: Path, words: list[str], endpoint: EvalEndpoint
) -> None:
    endpoint.every = "400"
    assert main([*words, "--generate-only"]) == 2
    endpoint.every = None
    assert main([*words, "--generate-only"]) == 0


def test_key_is_sent_and_written_nowhere(
    tmp_path: Path,
    words: list[str],
    endpoint: EvalEndpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVAL_KEY", "sk-very-secret-key")
    endpoint.answer_of = lambda asked: "x = 'sk-very-secret-key'"

    assert main([*words, "--generate-only", "--api-key-env", "EVAL_KEY"]) == 0

    assert set(endpoint.keys) == {"Bearer sk-very-secret-key"}
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"sk-very" not in path.read_bytes()
    assert main([*words, "--generate-only", "--api-key-env", "NO_SUCH"]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        ["--grade-only"],
        ["--limit", "0"],
        ["--max-in-flight", "0"],
        ["--benchmark", "mbbp"],
        ["--endpoint", "ftp://x"],
    ],
)
def test_words_that_make_no_sense_are_refused(words: list[str], changes: list[str]) -> None:
    assert main([*words, *changes]) == 2


def test_grading_alone_needs_something_generated(tmp_path: Path, words: list[str]) -> None:
    assert main(graded_only(tmp_path)) == 2
    without_style = words[: words.index("--style")]
    assert main(without_style) == 2
