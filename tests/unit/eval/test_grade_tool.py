from __future__ import annotations

import json
from pathlib import Path

import pytest
from eval_files import ADD, HALF, write_lines, write_mbpp

from mira_megatron.cli import main
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.suite import load_suite

SHIPPED = Path(__file__).parents[3] / "eval/suites/mira9.yaml"
SUITE = """
data_folder: nowhere
sampling: {greedy: {}}
benchmarks:
  mbpp: {kind: mbpp, category: c, file: tasks.jsonl, protocol: p, sampling: greedy}
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    write_mbpp(tmp_path / "tasks.jsonl")
    predictions = write_lines(
        tmp_path / "samples.jsonl",
        [
            {"task_id": "Mbpp/1001", "solution": "def add(a, b):\n    return a + b\n"},
            {"task_id": "Mbpp/1002", "solution": "def half(a):\n    return 0.5\n"},
        ],
    )
    paths = ["--data-folder", str(tmp_path), "--predictions", str(predictions)]
    return ["grade", str(suite), "--benchmark", "mbpp", "--output", str(tmp_path / "out"), *paths]


def test_grade_writes_verdicts_and_scores(
    sandbox: Sandbox, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["scores"]["mbpp"]["pass@1"] == 100.0
    assert results["scores"]["mbpp_plus"]["pass@1"] == 50.0
    assert results["scores"]["mbpp_plus"]["statuses"] == {"pass": 1, "fail": 1}
    assert results["isolation"] >= 3
    assert len(results["data"]["sha256"]) == 64
    assert "mbpp_plus: 50.00 % of 2 tasks" in capsys.readouterr().out
    assert main(words) == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["num_resumed"] == 2


def test_scores_are_told_with_and_without_tasks_whose_gold_fails(
    sandbox: Sandbox, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    unsure = {**HALF, "canonical_solution": "import os\ndef half(a):\n    return os.urandom(4)\n"}
    write_mbpp(tmp_path / "tasks.jsonl", ADD, unsure)
    assert main(words) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["scores"]["mbpp"]["pass@1"] == 50.0
    assert results["scores"]["mbpp"]["controlled"] == {
        "pass@1": 100.0,
        "num_tasks": 1,
        "failing": ["Mbpp/1002"],
    }
    assert results["controls"] == {"num_gold": 2}
    assert "100.00 % of the 1 tasks whose gold program passes here" in capsys.readouterr().out
    controls = json.loads((tmp_path / "out/controls.json").read_text())
    assert controls["failing"][0]["task_id"] == "Mbpp/1002"


def test_a_task_without_gold_values_is_no_reason_to_run_again(
    sandbox: Sandbox, tmp_path: Path, words: list[str]
) -> None:
    broken = {**HALF, "canonical_solution": "def half(a):\n    raise MemoryError\n"}
    write_mbpp(tmp_path / "tasks.jsonl", ADD, broken)
    assert main(words) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["scores"]["mbpp"]["statuses"] == {"pass": 1, "infra": 1}
    assert results["scores"]["mbpp"]["controlled"]["failing"] == ["Mbpp/1002"]
    assert main([*words, "--no-controls"]) == 1
    assert main([*words, "--shard", "1/2"]) == 0


def test_no_controls_says_so_in_the_results(
    sandbox: Sandbox, tmp_path: Path, words: list[str]
) -> None:
    assert main([*words, "--no-controls"]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["controls"] is results["scores"]["mbpp"]["controlled"] is None
    assert not (tmp_path / "out/controls.json").exists()


def test_another_grader_asks_for_regrade_and_shows_what_flips(
    sandbox: Sandbox, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    path = tmp_path / "out/verdicts.jsonl"
    old = path.read_text().replace('"mbpp/1"', '"mbpp/0"').replace('"fail"', '"timeout"')
    path.write_text(old)
    assert main(words) == 2
    assert "Add --regrade" in capsys.readouterr().err
    assert path.read_text() == old
    assert main([*words, "--regrade"]) == 0
    said = capsys.readouterr().out
    assert "1 verdicts are not what an earlier grader gave" in said
    assert "mbpp_plus Mbpp/1002 #0: timeout -> fail (was mbpp/0)" in said
    assert path.read_text().startswith(old)
    assert len(path.read_text().splitlines()) == 8
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [flip["after"] for flip in results["flips"]] == ["fail"]
    assert main(words) == 0


def test_corrected_tests_of_a_task_change_its_verdict(
    sandbox: Sandbox, tmp_path: Path, words: list[str]
) -> None:
    assert main(words) == 0
    write_mbpp(tmp_path / "tasks.jsonl", ADD, {**HALF, "plus_input": [[1]]})
    assert main(words) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["scores"]["mbpp_plus"]["pass@1"] == 100.0
    assert results["num_resumed"] == 1


def test_shards_give_no_score_and_together_the_same(
    sandbox: Sandbox, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in ("0/2", "1/2"):
        assert main([*words, "--shard", shard]) == 0
        assert "Scores: the same command without --shard" in capsys.readouterr().out
    assert not (tmp_path / "out/results.json").exists()
    assert main(words) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert (results["num_resumed"], results["num_run"]) == (2, 0)
    assert results["scores"]["mbpp_plus"]["pass@1"] == 50.0
    assert main([*words, "--shard", "2/2"]) == 2


def test_a_missing_task_is_refused_unless_told(
    sandbox: Sandbox, tmp_path: Path, words: list[str]
) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert main(words) == 2
    assert not (tmp_path / "out").exists()
    assert main([*words, "--subset"]) == 0


def test_more_isolation_than_there_is_is_refused(tmp_path: Path, words: list[str]) -> None:
    assert main([*words, "--min-isolation", "9"]) == 2
    assert not (tmp_path / "out").exists()


def test_a_missing_data_file_is_a_message(words: list[str]) -> None:
    words[words.index("--data-folder") + 1] = "/nowhere"
    assert main(words) == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: mbpp", "kind: nbpp", "kind='nbpp'"),
        ("category: c, ", "", r"missing \['category'\]"),
        ("protocol: p", "protocol: p, x: 1", r"unknown \['x'\]"),
        ("sampling: greedy}", "sampling: hot}", "'hot' is none of the profiles"),
        ("kind: mbpp", "kind: multipl_e, language: cobol", "language='cobol'"),
        ("benchmarks:", "marks:", "no mapping `benchmarks`"),
    ],
)
def test_a_wrong_suite_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace(old, new))
    with pytest.raises(ValueError, match=said):
        load_suite(path)


def test_the_shipped_suite_has_all_kinds_and_eight_languages() -> None:
    suite = load_suite(SHIPPED)
    assert sum(name.startswith("multipl_e_") for name in suite.entries) == 8
    assert suite.entry("multipl_e_ts").language == "ts"
    assert suite.entry("mbpp").category == "code_generation"
    with pytest.raises(ValueError, match="no benchmark 'nosuch'"):
        suite.entry("nosuch")
