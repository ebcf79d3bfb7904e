"""Token datasets as another team would have made them: by Megatron's builder, with score tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from mira_megatron import layout
from mira_megatron.config import load_recipe
from mira_megatron.manifest import Manifest
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.tokenization import adopt, tokenize
from mira_megatron.tokenization.index_file import bin_path, idx_path
from mira_megatron.tokenization.token_dataset import TokenDataset, read_token_dataset
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe

EOD_TOKEN = "<|endoftext|>"
VOCAB_SIZE = 300
TEXT = "the quick brown fox jumps over a lazy dog and writes tests for its code "


def write_tokenizer(path: Path) -> int:
    """Writes a small tokenizer and returns the id of its EOD."""
    tokenizer = train_byte_level_bpe([TEXT] * 4, VOCAB_SIZE)
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    eod_id = tokenizer.token_to_id(EOD_TOKEN)
    assert eod_id is not None
    return int(eod_id)


def write_pair(
    path_prefix: Path, documents: Sequence[Sequence[int]], dtype: type[np.number] = np.int32
) -> None:
    """Writes documents with Megatron's own builder; an empty one gets no sequence, as there."""
    builder = IndexedDatasetBuilder(str(bin_path(path_prefix)), dtype=dtype)
    for ids in documents:
        builder.add_document(torch.tensor(ids, dtype=torch.int64), [len(ids)] if ids else [])
    builder.finalize(str(idx_path(path_prefix)))


def random_documents(seed: int, count: int, eod_id: int) -> list[list[int]]:
    """Returns documents of 5 to 40 ids, the EOD at their end."""
    draw = np.random.default_rng(seed)
    return [
        [*draw.integers(20, VOCAB_SIZE - 10, draw.integers(4, 40)).tolist(), eod_id]
        for _ in range(count)
    ]


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes a parquet table, as a team's own scripts would."""
    pq.write_table(pa.table(dict(columns)), path)


def write_adopting_recipe(folder: Path, entries: Mapping[str, Any], **sections: Any) -> Path:
    """Writes a recipe that adopts and ingests nothing; its tokenizer is made too."""
    write_tokenizer(folder / "tokenizer.json")
    values = {
        "run_folder": str(folder / "run"),
        "tokenize": {
            "tokenizer": "tokenizer.json",
            "eod_token": EOD_TOKEN,
            "validation_fraction": 0.05,
            "validation_max_tokens": 200,
        },
        "adopt": entries,
        "arms": {"half": {"score": "team", "scope": "source", "budget_fraction": 0.5}},
        "blend": {"handover": "index_view", "sequence_length": 32},
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return path


def adopted(path: Path, *overrides: str) -> dict[str, Manifest]:
    """Runs the recipe's adopt stage; returns its manifests by unit."""
    recipe = load_recipe(path, overrides)
    run = Run(folder=recipe.run_folder)
    units = [*tokenize.units(recipe), *adopt.units(recipe)]
    return {unit.name: run_unit(unit, run, Resources()) for unit in units}


def dataset_of(folder: Path, source: str) -> TokenDataset:
    """Returns what the run in `folder` knows of an adopted source."""
    return read_token_dataset(folder / "run" / layout.tokens(source))


def documents_of(folder: Path, source: str) -> pa.Table:
    """Returns the documents table of an adopted source, all prefixes."""
    prefixes = dataset_of(folder, source).prefixes
    return pa.concat_tables([pq.read_table(prefix.documents) for prefix in prefixes])


def refused(folder: Path, entry: Mapping[str, Any]) -> str:
    """Returns what is said of a source `wiki` that cannot be adopted."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        adopted(write_adopting_recipe(folder, {"wiki": entry}))
    return str(error.value)
