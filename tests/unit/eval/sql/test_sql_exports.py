from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_files import write_bird, write_spider

from mira_megatron.eval.exports import export
from mira_megatron.eval.sql.benchmark import open_sql
from mira_megatron.eval.sql.statements import on_one_line
from mira_megatron.eval.verdicts import Form, Sample

SELECTS = st.sampled_from(
    ["SELECT 1", "SELECT 'a\tb'", "SELECT 1 -- one\n+ 2", "SELECT\n  id\nFROM t", "", "?"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SELECTS, min_size=3, max_size=3), st.sampled_from(["spider", "bird"]))
def test_exported_statements_are_read_again(folder: Path, statements: list[str], kind: str) -> None:
    write = write_spider if kind == "spider" else write_bird
    path = write(folder, ["SELECT 1"] * 3)
    benchmark = open_sql(kind, kind, path, {"version": "dev_test"}, folder / "cache")
    samples = [
        Sample(task_id=task_id, number=0, text=text, form=Form.PROGRAM)
        for task_id, text in zip(benchmark.task_ids, statements, strict=True)
    ]
    exported = folder / ("out.sql" if kind == "spider" else "out.json")
    assert export(kind, benchmark, samples, exported) == 3
    again = {each.task_id: each.text for each in benchmark.read_predictions(exported)}
    for sample in samples:
        found = benchmark.extract(sample).code or ""
        expected = on_one_line(found) if kind == "spider" else found
        assert again.get(sample.task_id, "").strip() == expected.strip()


def test_several_predictions_of_a_question_have_no_place(folder: Path) -> None:
    path = write_spider(folder, ["SELECT 1"])
    benchmark = open_sql("spider", "spider", path, {"version": "dev_test"}, folder / "cache")
    samples = [
        Sample(task_id="spider/0", number=number, text="SELECT 1", form=Form.PROGRAM)
        for number in range(2)
    ]
    with pytest.raises(ValueError, match="2 predictions, and spider's format has one"):
        export("spider", benchmark, samples, folder / "out.sql")
