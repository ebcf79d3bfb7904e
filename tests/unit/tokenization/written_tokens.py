"""What the tests of `write_tokens` share: texts, files of them, and what Megatron makes of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from tokenizers import Tokenizer

from mira_megatron.tokenization.index_file import bin_path, idx_path
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe
from mira_megatron.tokenization.write_tokens import WriteConfig, WriteReport, write_tokens

EOD = "<|endoftext|>"
TEXTS = [*[f"line {n}\n    return {n}" for n in range(60)], "日本 🙂", "a" * 3000]


def train_tokenizer(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(train_byte_level_bpe(TEXTS, 400).to_str(), encoding="utf-8")
    return path


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
