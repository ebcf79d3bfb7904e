"""`write_tokens` beside the loop of megatron-core 0.16.1's preprocessing, and its own promises."""

from __future__ import annotations

import io
import json
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
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from rich.console import Console
from tokenizers import Tokenizer

from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.tokenization import raw_text
from mira_megatron.tokenization.index_file import bin_path, idx_path, read_index
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe
from mira_megatron.tokenization.write_tokens import (
    WriteConfig,
    WriteReport,
    print_write_report,
    write_tokens,
)

EOD = "<|endoftext|>"
TEXTS = [*[f"line {n}\n    return {n}" for n in range(60)], "日本 🙂", "a" * 3000]
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
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_byte_level_bpe(TEXTS, 400).to_str(), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_text, "_MIN_SHARD_BYTES", 500)


def jsonl(path: Path, texts: list[str]) -> Path:
    rows = [{"text": text, "id": f"id-{number}"} for number, text in enumerate(texts)]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def megatron_writes(files: list[Path], tokenizer: Path, path_prefix: Path) -> None:
    """What tools/preprocess_data.py --append-eod does with each line, in one process."""
    stock: Any = Tokenizer.from_file(str(tokenizer))
    dtype = DType.optimal_dtype(stock.get_vocab_size())
    builder = IndexedDatasetBuilder(str(bin_path(path_prefix)), dtype=dtype)
    for line in (line for path in files for line in path.read_text(encoding="utf-8").splitlines()):
        ids = stock.encode(json.loads(line)["text"]).ids
        if ids:
            ids.append(stock.token_to_id(EOD))
        builder.add_document(ids, [len(ids)] if ids else [])
    builder.finalize(str(idx_path(path_prefix)))


def written(files: list[Path], tokenizer: Path, folder: Path, **changes: Any) -> WriteReport:
    config = WriteConfig(tokenizer=tokenizer, **changes)
    return write_tokens(files, folder / "tokens", config)


def files_under(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def documents(folder: Path) -> pa.Table:
    return pq.read_table(folder / "tokens.records.parquet")


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
    assert not (tmp_path / "out" / "tokens.shards").exists()


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


def test_no_rows_at_all_give_an_empty_dataset(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    report = written([tmp_path / "empty.jsonl"], tokenizer, tmp_path / "out")
    assert report.num_documents == read_index(tmp_path / "out" / "tokens").num_documents == 0


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
    with pytest.raises(ValueError, match=r"bad\.jsonl:1: invalid_json: .*3 of 65 rows"):
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
    with pytest.raises(ValueError, match="another files, shards than in this command"):
        written([path], tokenizer, tmp_path / "out")


def test_files_of_someone_else_are_not_overwritten(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    megatron_writes([path], tokenizer, tmp_path / "tokens")
    before = files_under(tmp_path)
    with pytest.raises(ValueError, match=r"tokens\.idx: exists, and was not written by `mira"):
        write_tokens([path], tmp_path / "tokens", WriteConfig(tokenizer=tokenizer))
    assert files_under(tmp_path) == before


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
    with pytest.raises(ValueError, match="no input files"):
        written([], tokenizer, tmp_path / "out")


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS * 400)
    command = [sys.executable, "-c", WRITE, str(tokenizer)]
    subprocess.run([*command, str(tmp_path / "whole" / "tokens"), str(path)], check=True)
    folder = tmp_path / "killed"
    process = subprocess.Popen([*command, str(folder / "tokens"), str(path)])
    while not list(folder.glob("tokens.shards/shard-*.json")):
        time.sleep(0.001)  # until some shard is finished
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = files_under(folder)
    subprocess.run([*command, str(folder / "tokens"), str(path)], check=True)
    assert files_under(folder) == files_under(tmp_path / "whole")
    assert any(name.endswith(".json") for name in finished)
