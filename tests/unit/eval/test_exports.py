from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from bigcodebench_files import TASK, bcb_row, opened_bcb
from eval_files import ADD, MULTIPL_E, MULTIPL_E_TASK, write_lines, write_mbpp, write_multipl_e
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from livecodebench_files import lcb_row, write_lcb

from mira_megatron.cli import main
from mira_megatron.eval.exports import export
from mira_megatron.eval.livecodebench import LiveCodeBench
from mira_megatron.eval.livecodebench_data import edition_of
from mira_megatron.eval.mbpp import Mbpp
from mira_megatron.eval.multipl_e import MultiplE
from mira_megatron.eval.predictions import read_predictions
from mira_megatron.eval.sql.statements import on_one_line
from mira_megatron.eval.verdicts import Form, Sample

FORMS = st.sampled_from([Form.PROGRAM, Form.COMPLETION])
BOTH = st.tuples(st.sampled_from(["Mbpp/1001", "Mbpp/1002"]), st.text(min_size=1), FORMS)
ONCE_MADE = [HealthCheck.function_scoped_fixture]


def numbered(entries: list[tuple[str, str, Form]]) -> list[Sample]:
    """Returns samples in the order of their tasks, as an export has them."""
    found: list[Sample] = []
    for task_id, text, form in sorted(entries, key=lambda entry: entry[0]):
        number = sum(sample.task_id == task_id for sample in found)
        found.append(Sample(task_id=task_id, number=number, text=text, form=form))
    return found


@settings(suppress_health_check=ONCE_MADE)
@given(st.lists(BOTH, min_size=1))
def test_evalplus_samples_are_the_same_programs_when_they_are_read_again(
    tmp_path: Path, entries: list[tuple[str, str, Form]]
) -> None:
    benchmark = Mbpp(write_mbpp(tmp_path / "tasks.jsonl"), tmp_path)
    samples = numbered(entries)
    path = tmp_path / "samples.jsonl"
    assert export("mbpp", benchmark, samples, path) == len(samples)
    again = read_predictions(path, benchmark.task_ids)
    assert [(each.task_id, each.number) for each in again] == [
        (each.task_id, each.number) for each in samples
    ]
    assert [benchmark.extract(each).code for each in again] == [
        benchmark.extract(each).code for each in samples
    ]


@settings(suppress_health_check=ONCE_MADE)
@given(st.lists(st.tuples(st.text(), FORMS), min_size=1, max_size=3))
def test_multipl_e_programs_are_the_same_to_its_runner(
    tmp_path: Path, entries: list[tuple[str, Form]]
) -> None:
    benchmark = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", "js"), "js")
    samples = numbered([(MULTIPL_E_TASK, text, form) for text, form in entries])
    export("multipl_e", benchmark, samples, tmp_path / "out")
    fields = json.loads(gzip.decompress((tmp_path / f"out/{MULTIPL_E_TASK}.json.gz").read_bytes()))
    assert (fields["name"], fields["language"]) == (MULTIPL_E_TASK, "js")
    assert fields["tests"] == MULTIPL_E["js"][3]
    assert [fields["prompt"] + each for each in fields["completions"]] == [
        benchmark.extract(each).code or "" for each in samples
    ]


def test_multipl_e_tasks_with_names_alike_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "a%2Fb", ".a_b", "../a", "..", "HumanEval_1_x"]
    entries = [{"name": name, "language": "py", "prompt": "", "tests": "pass\n"} for name in names]
    benchmark = MultiplE(write_lines(tmp_path / "tasks.jsonl", entries), "py")
    samples = [Sample(task_id=name, number=0, text=f"# {name}") for name in names]
    assert export("multipl_e", benchmark, samples, tmp_path / "out") == len(names)
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    written = [json.loads(gzip.decompress(content)) for content in found.values()]
    assert sorted(each["name"] for each in written) == sorted(names)
    assert "HumanEval_1_x.json.gz" in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tasks.jsonl"]


def test_multipl_e_completions_stand_behind_the_tasks_prompt(tmp_path: Path) -> None:
    benchmark = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", "sh"), "sh")
    prompt, right, _, _ = MULTIPL_E["sh"]
    samples = [Sample(task_id=MULTIPL_E_TASK, number=0, text=right)]
    export("multipl_e", benchmark, samples, tmp_path / "out")
    fields = json.loads(gzip.decompress((tmp_path / f"out/{MULTIPL_E_TASK}.json.gz").read_bytes()))
    assert (fields["prompt"], fields["completions"]) == (prompt, [right])


def test_bigcodebench_solutions_are_not_calibrated_twice(tmp_path: Path) -> None:
    benchmark = opened_bcb(tmp_path, bcb_row())
    program = "def task_func(text):\n    return 7\n"
    samples = [Sample(task_id=TASK, number=0, text=program, form=Form.PROGRAM)]
    export("bigcodebench", benchmark, samples, tmp_path / "samples.jsonl")
    line = json.loads((tmp_path / "samples.jsonl").read_text())
    assert line == {"task_id": TASK, "solution": program}


@settings(suppress_health_check=ONCE_MADE)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_livecodebench_lists_are_the_same_programs_when_they_are_read_again(
    tmp_path: Path, texts: list[str]
) -> None:
    folder = write_lcb(tmp_path / "lcb", lcb_row("abc300_a"))
    edition = edition_of({"release": "v6", "from": "2025-01-01", "until": "2025-05-01"}, "lcb")
    benchmark = LiveCodeBench(folder, edition, None, 6)
    samples = numbered([("abc300_a", text, Form.PROGRAM) for text in texts])
    export("livecodebench", benchmark, samples, tmp_path / "lists.json")
    again = read_predictions(tmp_path / "lists.json", ["abc300_a"])
    assert [each.text for each in again] == [benchmark.extract(each).code for each in samples]


@given(st.text())
def test_a_statement_on_one_line_has_no_line_end(statement: str) -> None:
    assert len(on_one_line(statement).splitlines()) <= 1


def test_a_statement_on_one_line_says_the_same() -> None:
    statement = "SELECT a -- the first\nFROM t /* all\nof it */ WHERE b = 'x -- y'\n"
    assert on_one_line(statement) == "SELECT a   FROM t   WHERE b = 'x -- y'"


def test_command_writes_what_grade_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "sampling: {greedy: {temperature: 0, num_samples: 1}}\n"
        "benchmarks:\n"
        "  mbpp: {kind: mbpp, category: c, file: tasks.jsonl, protocol: p, sampling: greedy}\n"
    )
    write_mbpp(tmp_path / "tasks.jsonl", ADD)
    entry = {"task_id": "Mbpp/1001", "completion": "def add(a, b): return a + b"}
    predictions = write_lines(tmp_path / "predictions.jsonl", [entry])
    words = ["export-predictions", str(suite), "--benchmark", "mbpp", "--data-folder"]
    words += [str(tmp_path), "--predictions", str(predictions), "--output"]
    assert main([*words, str(tmp_path / "out.jsonl")]) == 0
    assert "1 programs" in capsys.readouterr().out
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert line["solution"] == str(ADD["prompt"]) + entry["completion"]
