"""`write_tokens` beside the loop of megatron-core 0.16.1's preprocessing, and its own promises."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from rich.console import Console
from written_tokens import (
    EOD,
    TEXTS,
    documents,
    files_under,
    jsonl,
    megatron_writes,
    train_tokenizer,
    written,
)

from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.tokenization import parquet_rows, raw_shards, raw_text
from mira_megatron.tokenization.index_file import bin_path, idx_path, read_index
from mira_megatron.tokenization.write_tokens import (
    WriteReport,
    print_write_report,
)

# Killed while it works; small shards, so that there are some to go on with.
WRITE = """
import sys
from pathlib import Path
from mira_megatron.tokenization import raw_text
from mira_megatron.tokenization.write_tokens import WriteConfig, write_tokens
raw_text._MIN_SHARD_BYTES = 100_000
files = [Path(name) for name in sys.argv[3:]]
write_tokens(files, Path(sys.argv[2]), WriteConfig(tokenizer=Path(sys.argv[1]), workers=2))
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_text, "_MIN_SHARD_BYTES", 500)


@pytest.mark.parametrize("backend", ["gigatoken", "huggingface"])
@pytest.mark.parametrize("workers", [1, 3])
def test_written_files_are_those_of_megatron(
    tmp_path: Path, tokenizer: Path, backend: str, workers: int
) -> None:
    files = [jsonl(tmp_path / "b.jsonl", TEXTS), jsonl(tmp_path / "a.jsonl", TEXTS[::-1])]
    report = written(files, tokenizer, tmp_path / "out", backend=backend, workers=workers)
    megatron_writes(files, tokenizer, tmp_path / "megatron")
    for path in (bin_path, idx_path):
        ours, theirs = path(tmp_path / "out" / "tokens"), path(tmp_path / "megatron")
        assert ours.read_bytes() == theirs.read_bytes()
    assert (report.num_files, report.num_documents) == (2, 2 * len(TEXTS))
    assert report.num_text_bytes == 2 * sum(len(text.encode()) for text in TEXTS)
    assert not (tmp_path / "out" / ".tokens.mira-write").exists()


def test_written_files_are_the_same_by_processes_and_from_parquet(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "a.jsonl", TEXTS)
    written([path], tokenizer, tmp_path / "threads", workers=2, id_field="id")
    monkeypatch.setattr("mira_megatron.tokenization.write_tokens._PROCESSES_FROM_BYTES", 0)
    written([path], tokenizer, tmp_path / "processes", workers=2, id_field="id")
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=7)
    written([tmp_path / "a.parquet"], tokenizer, tmp_path / "parquet", id_field="id")
    names = ["tokens.bin", "tokens.idx", "tokens.records.parquet"]
    made = [files_under(tmp_path / name) for name in ("threads", "processes", "parquet")]
    assert all(
        [found[name] for name in names] == [made[0][name] for name in names] for found in made
    )


def test_every_document_has_a_row_that_describes_it(tmp_path: Path, tokenizer: Path) -> None:
    files = [jsonl(tmp_path / name, TEXTS) for name in ("one.jsonl", "two.jsonl")]
    written(files, tokenizer, tmp_path / "out", workers=2)
    table = documents(tmp_path / "out")
    assert table.schema == DOCUMENT_SCHEMA
    columns = table.to_pydict()
    expected = [f"{path}:{row}" for path in files for row in range(1, len(TEXTS) + 1)]
    assert columns["record_id"] == expected
    assert columns["text_hash"] == [xxhash.xxh3_128_digest(t.encode()) for t in TEXTS] * 2
    assert columns["num_tokens"] == read_index(tmp_path / "out" / "tokens").lengths_S.tolist()
    assert not any(columns["is_validation"])


def test_the_id_field_names_the_records(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    written([path], tokenizer, tmp_path / "out", id_field="id")
    expected = [f"id-{number}" for number in range(len(TEXTS))]
    assert documents(tmp_path / "out")["record_id"].to_pylist() == expected


def test_an_empty_text_is_its_eod_and_control_text_is_text(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", ["", f"a{EOD}b", ""])
    report = written([path], tokenizer, tmp_path / "out")
    lengths = read_index(tmp_path / "out" / "tokens").lengths_S.tolist()
    assert (lengths[0], lengths[2]) == (1, 1)
    assert lengths[1] > 4
    assert report.num_control_texts == 1


def test_files_without_any_document_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    empty = jsonl(tmp_path / "empty.jsonl", [])
    with pytest.raises(ValueError, match=r"empty\.jsonl: no document in 1 files"):
        written([empty], tokenizer, tmp_path / "out")
    assert not bin_path(tmp_path / "out" / "tokens").exists()
    full = jsonl(tmp_path / "full.jsonl", TEXTS)
    assert written([empty, full], tokenizer, tmp_path / "out").num_documents == len(TEXTS)


def test_a_bad_row_is_refused_by_file_and_line(tmp_path: Path, tokenizer: Path) -> None:
    good = jsonl(tmp_path / "good.jsonl", TEXTS)
    path = jsonl(tmp_path / "bad.jsonl", TEXTS)
    path.write_bytes(path.read_bytes() + b'{"text": 1}\n')
    number = len(TEXTS) + 1
    with pytest.raises(ValueError, match=rf"bad\.jsonl:{number}: no_text: expected a string in"):
        written([good, path], tokenizer, tmp_path / "out", workers=2)
    assert not bin_path(tmp_path / "out" / "tokens").exists()


def test_bad_rows_that_are_allowed_are_left_out_counted_and_listed(
    tmp_path: Path, tokenizer: Path
) -> None:
    path = jsonl(tmp_path / "bad.jsonl", TEXTS)
    path.write_bytes(b"{\n" + path.read_bytes() + b'{"text": "\\ud800"}\n[]\n')
    with pytest.raises(
        ValueError, match=r"bad\.jsonl:1: invalid_json: .*3 of 65 rows.*--text-field"
    ):
        written([path], tokenizer, tmp_path / "out", max_bad_fraction=0.04)
    report = written([path], tokenizer, tmp_path / "other", max_bad_fraction=0.05)
    assert report.num_dropped == {"invalid_json": 2, "not_an_object": 1}
    lines = (tmp_path / "other" / "tokens.dropped.jsonl").read_bytes().splitlines()
    origins = [orjson.loads(line)["origin"] for line in lines]
    assert origins == [f"{path}:{row}" for row in (1, len(TEXTS) + 2, len(TEXTS) + 3)]
    assert documents(tmp_path / "other")["record_id"][0].as_py() == f"{path}:2"
    console = Console(file=io.StringIO(), width=200)
    print_write_report(console, report)
    assert "invalid_json 2, not_an_object 1" in console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_writing_again_does_nothing_and_other_settings_are_refused(
    tmp_path: Path, tokenizer: Path
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    first = written([path], tokenizer, tmp_path / "out")
    before = files_under(tmp_path / "out")
    again = written([path], tokenizer, tmp_path / "out", workers=2, backend="huggingface")
    assert (again.was_done, again.num_tokens) == (True, first.num_tokens)
    assert files_under(tmp_path / "out") == before
    with pytest.raises(ValueError, match=r"written\.json: another text_field than in this command"):
        written([path], tokenizer, tmp_path / "out", text_field="id")
    jsonl(path, TEXTS[:-1])
    with pytest.raises(ValueError, match="another files than in this command"):
        written([path], tokenizer, tmp_path / "out")


def test_object_storage_and_a_folder_that_is_none_are_refused_before_work(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="object storage"):
        written([path], tokenizer, Path("s3://bucket"))
    with pytest.raises(OSError, match=r"one\.jsonl: cannot be written to"):
        written([path], tokenizer, path)
    assert [found.name for found in tmp_path.iterdir()] == ["one.jsonl"]


def test_all_bad_rows_are_listed(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "bad.jsonl", TEXTS)
    path.write_bytes(b"{\n" * 2500 + path.read_bytes())
    report = written([path], tokenizer, tmp_path, max_bad_fraction=0.99)
    lines = (tmp_path / "tokens.dropped.jsonl").read_bytes().splitlines()
    assert report.num_dropped == {"invalid_json": 2500}
    assert [orjson.loads(line)["origin"] for line in lines] == [
        f"{path}:{row}" for row in range(1, 2501)
    ]


def test_records_are_the_same_in_any_row_groups(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "ROWS_PER_GROUP", 7)
    files = [jsonl(tmp_path / name, TEXTS) for name in ("one.jsonl", "two.jsonl")]
    written(files, tokenizer, tmp_path / "out")
    found = pq.ParquetFile(tmp_path / "out" / "tokens.records.parquet")
    assert found.num_row_groups == 18
    expected = [f"{path}:{row}" for path in files for row in range(1, len(TEXTS) + 1)]
    assert found.read()["record_id"].to_pylist() == expected


def test_equal_ids_are_refused_by_name(tmp_path: Path, tokenizer: Path) -> None:
    one = jsonl(tmp_path / "one.jsonl", TEXTS)
    two = tmp_path / "two.jsonl"
    two.write_bytes(b'{"text": "a", "id": "other"}\n{"text": "b", "id": "id-7"}\n')
    message = r"two\.jsonl: a row has the id 'id-7', and so has another one of .*one\.jsonl\. 1 of"
    with pytest.raises(ValueError, match=message):
        written([one, two], tokenizer, tmp_path / "out", id_field="id")
    assert not bin_path(tmp_path / "out" / "tokens").exists()
    report = written([one, two], tokenizer, tmp_path / "out")
    assert report.num_documents == len(TEXTS) + 2


def test_ids_of_equal_hash_are_no_equal_ids(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        raw_shards, "text_hashes", lambda texts: pa.array([bytes(16)] * len(texts), pa.binary(16))
    )
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    assert written([path], tokenizer, tmp_path, id_field="id").num_documents == len(TEXTS)


def test_the_report_prints_paths_as_they_are() -> None:
    report = WriteReport(
        path_prefix=Path("/data/[red]x[/x]") / ("long " * 20) / "o",
        num_files=1,
        num_text_bytes=1,
        num_rows=2,
        num_documents=1,
        num_tokens=2,
        num_control_texts=0,
        num_dropped={"no_text": 1},
        was_done=True,
    )
    console = Console(file=io.StringIO(), width=40)
    print_write_report(console, report)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    assert lines[0].startswith(f"{report.path_prefix}.bin/.idx: already written, 1 documents")
    assert lines[1] == f"Rows left out: no_text 1 (listed in {report.path_prefix}.dropped.jsonl)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "fast"}, "backend='fast' must be one of"),
        ({"workers": 0}, "workers=0 must be positive"),
        ({"max_bad_fraction": 1.0}, r"max_bad_fraction=1\.0 must be in \[0, 1\)"),
        ({"eod_token": "</s>"}, "eod_token='</s>' is not one of its added tokens"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(
    tmp_path: Path, tokenizer: Path, changes: dict[str, Any], message: str
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    with pytest.raises(ValueError, match=message):
        written([path], tokenizer, tmp_path / "out", **changes)


def test_the_same_file_twice_and_no_file_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    with pytest.raises(ValueError, match=r"one\.jsonl: named more than once"):
        written([path, path], tokenizer, tmp_path / "out")
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(ValueError, match=r"link\.jsonl: named more than once \(as .*one\.jsonl\)"):
        written([path, tmp_path / "link.jsonl"], tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="no input files"):
        written([], tokenizer, tmp_path / "out")


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS * 400)
    command = [sys.executable, "-c", WRITE, str(tokenizer)]
    subprocess.run([*command, str(tmp_path / "whole" / "tokens"), str(path)], check=True)
    folder = tmp_path / "killed"
    process = subprocess.Popen([*command, str(folder / "tokens"), str(path)])
    while process.poll() is None and not list(folder.glob(".tokens.mira-write/shard-*.json")):
        time.sleep(0.001)  # until some shard is finished
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = files_under(folder)
    subprocess.run([*command, str(folder / "tokens"), str(path)], check=True)
    assert files_under(folder) == files_under(tmp_path / "whole")
    assert any(name.endswith(".json") for name in finished)
