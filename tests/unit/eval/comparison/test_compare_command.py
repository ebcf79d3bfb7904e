from __future__ import annotations

import json
from pathlib import Path

import pytest
from eval_files import write_lines, write_mbpp
from evaluations import FAIL, PASS, write_entry, write_nine

from mira_megatron.cli import main
from mira_megatron.eval.graded_tasks import read_tasks
from mira_megatron.eval.sandbox.contract import Sandbox

PUBLISHED = Path(__file__).parents[4] / "eval/published/mira_paper.yaml"
FILES = {
    *("comparison.json", "comparison.md", "comparison.html", "comparison.tex"),
    *("scores.csv", "differences.csv", "flips.csv"),
}
SUITE = """
data_folder: nowhere
sampling: {greedy: {}}
benchmarks:
  mbpp: {kind: mbpp, category: c, file: tasks.jsonl, protocol: p, sampling: greedy}
"""


def test_compare_writes_every_file_twice_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nine(tmp_path / "a")
    write_nine(tmp_path / "s0", share=0.6, seed=1)
    write_nine(tmp_path / "s1", share=0.6, seed=2)
    words = ["compare", str(tmp_path / "a"), "--against", str(PUBLISHED), "--resamples", "300"]
    words += ["--label", f"g={tmp_path / 's0'}", "--label", f"g={tmp_path / 's1'}"]
    for name in ("out", "again"):
        assert main([*words, "--output", str(tmp_path / name)]) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(written) == FILES
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    said = " ".join(capsys.readouterr().out.split())
    assert "g minus a: macro +" in said
    assert "random_25b: macro is stated as 63.23, its categories give 62.55" in said


def test_compare_of_unlike_protocols_ends_with_2_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write_nine(tmp_path / "a"), write_nine(tmp_path / "b", grader="g/2")]
    words = ["compare", *map(str, folders), "--output", str(tmp_path / "out"), "--resamples", "300"]
    assert main(words) == 2
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert said.count("grader is a: g/1, b: g/2") == 1  # for all benchmarks at once
    assert "swe_multilingual" in said
    assert main([*words, "--allow-unlike"]) == 0
    assert "not of one protocol" in (tmp_path / "out/comparison.html").read_text()


def test_part_of_a_benchmark_is_shown_and_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = {"mbpp": {"t0": [PASS], "t1": [FAIL]}}
    write_entry(tmp_path / "a", "mbpp", statuses, left_out=["t2"])
    words = ["compare", str(tmp_path / "a"), "--output", str(tmp_path / "out")]
    assert main([*words, "--resamples", "300"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "MBPP 50.00" in said
    assert "a: 1 of these over a part of the tasks alone" in said
    for name in ("comparison.md", "comparison.html"):
        assert "2 of its tasks alone" in (tmp_path / "out" / name).read_text()


@pytest.mark.parametrize("label", ["x", "=x", "x="])
def test_a_label_without_name_or_folder_is_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--label", label, "--output", str(tmp_path)])
    assert ended.value.code == 2


def test_compare_without_a_folder_audits_the_published_table(tmp_path: Path) -> None:
    assert main(["compare", "--against", str(PUBLISHED), "--output", str(tmp_path / "out")]) == 0
    assert main(["compare", "--output", str(tmp_path / "none")]) == 2


def test_what_grade_wrote_is_compared(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    write_mbpp(tmp_path / "tasks.jsonl")
    add = {"task_id": "Mbpp/1001", "solution": "def add(a, b):\n    return a + b\n"}
    for name, half in (("right", "a / 2"), ("wrong", "0.5")):
        wrong = {"task_id": "Mbpp/1002", "solution": f"def half(a):\n    return {half}\n"}
        predictions = write_lines(tmp_path / f"{name}.jsonl", [add, wrong])
        words = ["grade", str(tmp_path / "suite.yaml"), "--benchmark", "mbpp"]
        words += ["--data-folder", str(tmp_path), "--predictions", str(predictions)]
        # Both into one folder: the second grading appends to the verdicts of the first.
        assert (
            main([*words, "--output", str(tmp_path / "graded"), "--cache", str(tmp_path / "c")])
            == 0
        )
    tasks = read_tasks(tmp_path / "graded/tasks.jsonl")
    assert [task.cluster for task in tasks] == ["Mbpp/1001", "Mbpp/1002"]
    assert [list(task.programs) for task in tasks] == [[0], [0]]
    out = tmp_path / "out"
    assert main(["compare", str(tmp_path / "graded"), "--output", str(out)]) == 0
    scores = json.loads((out / "comparison.json").read_text())["arms"][0]["scores"]
    assert scores["mbpp"]["value"] == 100.0
    assert scores["mbpp_plus"]["value"] == 50.0
    assert scores["mbpp_plus"]["graded"]["num_tasks"] == 2
