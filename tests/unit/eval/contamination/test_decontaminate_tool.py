"""`mira decontaminate` over records that `mira ingest` made, with planted items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import xxhash
from contamination_scans import SOLUTION
from eval_files import ADD, write_lines

from mira_megatron.cli import main
from mira_megatron.eval.contamination.item_records import dirty_tasks

SUITE = """
name: tiny
data_folder: nowhere
sampling: {greedy: {}}
benchmarks:
  mbpp: {kind: mbpp, category: c, file: tasks.jsonl, protocol: p, sampling: greedy}
  more: {kind: mbpp, category: c, file: more.jsonl, protocol: p, sampling: greedy}
"""
PROMPT = '"""Count the rows of a table whose sum is even and that are shorter than a limit."""\n'
LEAKED = {**ADD, "task_id": "Mbpp/1", "prompt": PROMPT, "canonical_solution": SOLUTION}
SHORT = {**ADD, "task_id": "Mbpp/2", "prompt": "Add.", "canonical_solution": "return a + b"}
UNSEEN = {
    **ADD,
    "task_id": "Mbpp/3",
    "prompt": SOLUTION.replace("found", "total").replace("row", "line").replace("sum", "max"),
}
TRAINED = {**LEAKED, "task_id": "Mbpp/601", "canonical_solution": UNSEEN["prompt"]}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The words of the command, over 40 records of two sources; three have what is leaked."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    write_lines(tmp_path / "tasks.jsonl", [LEAKED, SHORT, UNSEEN])
    write_lines(tmp_path / "more.jsonl", [{**UNSEEN, "task_id": "Other/1"}])
    for source in ("wiki", "code"):
        rows = [{"text": f"{source} text number {number}"} for number in range(20)]
        rows[3]["text"] += SOLUTION
        if source == "code":
            rows[7]["text"] = f"{rows[7]['text']}é\n{PROMPT} then {SOLUTION}"
        write_lines(tmp_path / f"{source}.jsonl", rows)
    recipe = tmp_path / "recipe.yaml"
    source = "{{format: jsonl, family: text, paths: [{0}.jsonl], fields: {{text: text}}}}"
    recipe.write_text(
        f"run_folder: {tmp_path}/run\nsources:\n  wiki: {source.format('wiki')}\n"
        f"  code: {source.format('code')}\n"
        "ingest: {records_per_part: 5, max_bad_fraction: 0}\n"
    )
    paths = ["--suite", str(tmp_path / "suite.yaml"), "--data-folder", str(tmp_path)]
    return ["decontaminate", str(recipe), *paths, "--workers", "1"]


@pytest.fixture
def ingested(words: list[str]) -> list[str]:
    assert main(["ingest", words[1], "--workers", "1"]) == 0
    return words


def output(folder: Path) -> Path:
    return folder / "run/contamination/tiny"


def items(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (output(folder) / "items.jsonl").read_text().splitlines()
    return {item["task_id"]: item for item in map(json.loads, lines)}


def record_id(folder: Path, source: str, number: int) -> str:
    part = folder / f"run/records/{source}/part-{number // 5:05d}.parquet"
    found: str = pq.read_table(part)["record_id"][number % 5].as_py()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    names = ("items.jsonl", "hits.parquet", "keep.parquet")
    return {name: (folder / name).read_bytes() for name in names}


def test_records_with_a_leaked_item_are_told_and_left_out(
    ingested: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ingested) == 0
    keep = pq.read_table(output(tmp_path) / "keep.parquet").to_pylist()
    leaked = [record_id(tmp_path, *each) for each in (("code", 3), ("code", 7), ("wiki", 3))]
    assert {row["record_id"] for row in keep} == set(leaked)
    assert {row["keep"] for row in keep} == {False}
    assert keep[0]["reason"] == "mbpp/solution"
    found = items(tmp_path)
    assert {task: item["status"] for task, item in found.items()} == {
        "Mbpp/1": "dirty",
        "Mbpp/2": "unmeasured",
        "Mbpp/3": "clean",
        "Other/1": "clean",
    }
    assert found["Mbpp/1"]["num_records"] == 3
    assert found["Mbpp/1"]["max_score"] == 1.0
    assert found["Mbpp/2"]["max_score"] is None
    (document,) = [
        each
        for each in found["Mbpp/1"]["documents"]
        if (each["record_id"], each["surface"]) == (leaked[1], "solution")
    ]
    assert (document["source"], document["source_group"]) == ("code", "text")
    text = pq.read_table(tmp_path / "run/records/code/part-00001.parquet")["text"][2].as_py()
    assert text[document["start"] : document["end"]] == SOLUTION.strip()
    said = capsys.readouterr().out
    assert "3 records to leave out" in said
    assert f"path: {output(tmp_path)}/keep.parquet, unlisted: keep" in said


def test_files_of_a_run_that_ended_between_them_do_not_stand_beside_those_of_another(
    ingested: list[str], tmp_path: Path
) -> None:
    assert main(ingested) == 0
    before = contents(output(tmp_path))
    blocked = output(tmp_path) / ".hits.parquet.tmp"
    blocked.mkdir()
    assert main([*ingested, "--benchmark", "mbpp"]) == 2
    assert (output(tmp_path) / "items.jsonl").read_bytes() != before["items.jsonl"]
    for name in ("hits.parquet", "keep.parquet", "summary.json"):
        assert not (output(tmp_path) / name).exists()
    blocked.rmdir()
    assert main(ingested) == 0
    assert contents(output(tmp_path)) == before
    summary = json.loads((output(tmp_path) / "summary.json").read_text())
    assert summary["written"] == {
        name: xxhash.xxh3_128_hexdigest(content) for name, content in before.items()
    }


def test_summary_counts_by_benchmark_and_source(ingested: list[str], tmp_path: Path) -> None:
    assert main(ingested) == 0
    summary = json.loads((output(tmp_path) / "summary.json").read_text())
    assert summary["sources"] == {
        "code": {"num_records": 20, "num_dropped": 2},
        "wiki": {"num_records": 20, "num_dropped": 1},
    }
    (mbpp, more) = summary["benchmarks"]
    assert (mbpp["num_items"], mbpp["num_dirty"], mbpp["num_unmeasured"]) == (3, 1, 1)
    assert mbpp["sources"]["code"] == {"num_dirty_items": 1, "num_records": 2}
    assert (more["num_dirty"], more["sources"]) == (0, {})
    assert len(summary["files"]) == 2
    assert (summary["num_parts"], summary["num_parts_kept"]) == (8, 0)


def test_dirty_tasks_are_those_of_one_benchmark(ingested: list[str], tmp_path: Path) -> None:
    assert main([*ingested, "--benchmark", "mbpp"]) == 0
    assert dirty_tasks(output(tmp_path), "mbpp") == {"Mbpp/1"}
    with pytest.raises(ValueError, match="more was not looked for in the corpus, only mbpp"):
        dirty_tasks(output(tmp_path) / "items.jsonl", "more")
    (output(tmp_path) / "items.jsonl").write_text('{"benchmark": "mbpp"}\n')
    with pytest.raises(ValueError, match=r"items\.jsonl:1: no item"):
        dirty_tasks(output(tmp_path), "mbpp")


def test_training_split_is_told_apart_and_left_in(ingested: list[str], tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", [TRAINED])
    more = ["--train", f"more={train}", "--benchmark", "more"]
    assert main([*ingested, *more]) == 0
    found = items(tmp_path)
    assert (found["Mbpp/601"]["split"], found["Mbpp/601"]["status"]) == ("train", "dirty")
    assert found["Mbpp/601"]["num_records"] == 1
    assert len(pq.read_table(output(tmp_path) / "keep.parquet")) == 0
    assert dirty_tasks(output(tmp_path), "more") == frozenset()


def test_finished_parts_are_kept_and_others_made(ingested: list[str], tmp_path: Path) -> None:
    assert main(ingested) == 0
    before = contents(output(tmp_path))
    parts = sorted((output(tmp_path) / "parts").rglob("*.parquet"))
    assert len(parts) == 8
    parts[2].unlink()
    parts[3].write_bytes(b"torn")
    stamps = {part: part.stat().st_mtime_ns for part in parts if part not in parts[2:4]}
    assert main([*ingested, "--workers", "2"]) == 0
    assert contents(output(tmp_path)) == before
    assert {part: part.stat().st_mtime_ns for part in stamps} == stamps
    summary = json.loads((output(tmp_path) / "summary.json").read_text())
    assert summary["num_parts_kept"] == 6
    assert not (output(tmp_path) / ".scratch").exists()


def test_another_threshold_reads_what_was_found(ingested: list[str], tmp_path: Path) -> None:
    path = tmp_path / "wiki.jsonl"
    path.write_text(path.read_text().replace("if sum(row)", "if len(row)"))
    assert main(["ingest", ingested[1], "--workers", "1"]) == 0
    assert main([*ingested, "--threshold", "0.3"]) == 0
    assert len(pq.read_table(output(tmp_path) / "keep.parquet")) == 3
    assert main([*ingested, "--threshold", "0.9"]) == 0
    assert len(pq.read_table(output(tmp_path) / "keep.parquet")) == 2
    summary = json.loads((output(tmp_path) / "summary.json").read_text())
    assert summary["num_parts_kept"] == 8


def test_changed_tasks_or_records_are_looked_for_anew(ingested: list[str], tmp_path: Path) -> None:
    assert main(ingested) == 0
    write_lines(tmp_path / "tasks.jsonl", [SHORT, UNSEEN])
    assert main(ingested) == 0
    assert len(pq.read_table(output(tmp_path) / "keep.parquet")) == 0
    write_lines(tmp_path / "tasks.jsonl", [LEAKED])
    write_lines(tmp_path / "wiki.jsonl", [{"text": SOLUTION}] * 2 + [{"text": PROMPT}])
    assert main(["ingest", ingested[1], "--workers", "1"]) == 0
    assert main(ingested) == 0
    assert len(pq.read_table(output(tmp_path) / "keep.parquet")) == 5


def test_damaged_part_of_the_records_is_named(
    ingested: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "run/records/code/part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert main(ingested) == 2
    assert f"{part}: this part's bytes changed" in capsys.readouterr().err
    assert not (output(tmp_path) / "keep.parquet").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--threshold", "0.1"], "threshold=0.1 must be in [0.2, 1]"),
        (["--benchmark", "nosuch"], "no benchmark 'nosuch'"),
        (["--train", "nosuch=x"], "--train nosuch=x: none of mbpp, more"),
        (["--data-folder", "/nowhere"], "/nowhere/tasks.jsonl: no such data file"),
    ],
)
def test_what_cannot_be_done_is_told(
    ingested: list[str], more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ingested, *more]) == 2
    assert said in capsys.readouterr().err


def test_records_that_are_not_there_yet_are_told(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "source code has no finished records" in capsys.readouterr().err


def test_gold_queries_and_their_training_split_are_found(
    ingested: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("sqlglot", reason="sqlglot comes with the extra `eval`")
    suite = SUITE.replace("more: {kind: mbpp", "spider: {kind: spider")
    (tmp_path / "suite.yaml").write_text(suite)
    gold = "SELECT name, max(age) FROM pets JOIN owners ON pets.id = owners.id WHERE age > {} "
    test, train = ({"db_id": "pets", "question": "?", "query": gold.format(n)} for n in (3, 5))
    (tmp_path / "more.jsonl").write_text(json.dumps(test))
    (tmp_path / "train.json").write_text(json.dumps([train]))
    write_lines(tmp_path / "wiki.jsonl", [{"text": f"```sql\n{gold.format(5).lower()}\n```"}])
    assert main(["ingest", ingested[1], "--workers", "1"]) == 0
    more = ["--benchmark", "spider", "--train", f"spider={tmp_path / 'train.json'}"]
    assert main([*ingested, *more]) == 0
    hits = pq.read_table(output(tmp_path) / "hits.parquet").to_pylist()
    queries = {(hit["split"], hit["surface"]) for hit in hits if "query" in hit["surface"]}
    assert queries == {("test", "masked_query"), ("train", "masked_query"), ("train", "query")}
    assert pq.read_table(output(tmp_path) / "keep.parquet")["reason"].to_pylist() == [
        "spider/masked_query"
    ]
