"""Run folders made for tests of traces: tokens, keep masks, scores and a blend, without stages.

A token id tells its document: token t of document d of a prefix is `first_token(d) + t`, the last
one of a document is EOD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from token_datasets import EOD, VOCAB_SIZE, one_process

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.provenance.record_uses import RecordUse
from mira_megatron.provenance.trace import TracedSpan
from mira_megatron.provenance.traced_training import TracedTraining
from mira_megatron.records import DOCUMENT_SCHEMA, RECORD_SCORE_SCHEMA
from mira_megatron.retention.keep_masks import read_keep_mask, write_keep_mask
from mira_megatron.shards import write_parquet
from mira_megatron.tokenization.handovers import write_index_view, write_physical_copy
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    index_fingerprint,
    read_index,
)
from mira_megatron.tokenization.keep_mask_dataset import (
    KeepMaskGPTDataset,
    KeepMaskGPTDatasetConfig,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    TokenPrefix,
    prefix_name,
    read_token_dataset,
    write_token_dataset,
)

SEED = 3
LENGTH = 8  # sequence_length
ARM, SCORING = "best", "quality"


@dataclass(frozen=True)
class PlannedDocument:
    """Tokens of each of its sequences, and how often one pass reads it (0: dropped)."""

    lengths: tuple[int, ...]
    times: int = 1
    is_validation: bool = False

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)


def planned(*documents: tuple[tuple[int, ...], int]) -> list[PlannedDocument]:
    return [PlannedDocument(lengths, times) for lengths, times in documents]


def record_id(source: str, record: int) -> str:
    """Returns the id of a source's record, whose number counts through its prefixes."""
    return f"{source[0] * 4}{record:028x}"


def score_of(record: int) -> float | None:
    """Returns a record's score: every third has none."""
    return None if record % 3 == 2 else record / 4


def write_run(
    folder: Path,
    sources: Mapping[str, Sequence[Sequence[PlannedDocument]]],
    *,
    handover: str = "index_view",
    weights: Sequence[float] | None = None,
) -> TracedTraining:
    """Writes what `mira blend` and its upstream leave, for an arm; returns how to trace it."""
    entries = []
    for source, prefixes in sources.items():
        _write_tokens(folder, source, prefixes)
        _write_scores(folder, source, sum(map(len, prefixes)))
        dataset = read_token_dataset(folder / layout.tokens(source))
        for prefix, documents in zip(dataset.prefixes, prefixes, strict=True):
            entries.append(_train_entry(folder, prefix, documents, handover))
    readable = [entry for entry in entries if entry["num_tokens"] > LENGTH]
    content = {
        "schema_version": 2,
        "arm": ARM,
        "handover": handover,
        "sequence_length": LENGTH,
        "train": [entry["prefix"] for entry in readable],
        "train_weights": weights,
        "num_train_samples": sum((entry["num_tokens"] - 1) // LENGTH for entry in readable),
        "valid": [],
        "test": [],
        "keep_masks": {},
        "entries": readable,
        "left_out": [entry for entry in entries if entry not in readable],
        "eod_id": EOD,
        "vocab_size": VOCAB_SIZE,
    }
    write_json(folder / layout.blend(ARM) / layout.BLEND, content)
    return TracedTraining(
        run_folder=folder,
        arm=ARM,
        seed=SEED,
        micro_batch_size=1,
        global_batch_size=1,
        data_parallel_size=1,
        scoring=SCORING,
    )


def _write_tokens(folder: Path, source: str, prefixes: Sequence[Sequence[PlannedDocument]]) -> None:
    tokens = folder / layout.tokens(source)
    tokens.mkdir(parents=True)
    written, record = [], 0
    for position, documents in enumerate(prefixes):
        name = prefix_name(source, position, len(prefixes))
        path_prefix = tokens / f"{name}-0a1b2c3d"
        builder = IndexedDatasetBuilder(str(bin_path(path_prefix)), dtype=np.int32)
        for number, document in enumerate(documents):
            ids = [*range(number * 1000 + 1, number * 1000 + document.num_tokens), EOD]
            ids = ids if document.num_tokens else []
            builder.add_document(torch.tensor(ids, dtype=torch.int32), list(document.lengths))
        builder.finalize(str(idx_path(path_prefix)))
        table = {
            "record_id": [record_id(source, record + number) for number in range(len(documents))],
            "num_tokens": [document.num_tokens for document in documents],
            "is_validation": [document.is_validation for document in documents],
            "text_hash": [bytes(16)] * len(documents),
        }
        path = tokens / f"{name}.records.parquet"
        write_parquet(path, pa.table(table, schema=DOCUMENT_SCHEMA))
        record += len(documents)
        written.append(
            TokenPrefix(
                name=name,
                source=source,
                path_prefix=path_prefix,
                documents=path,
                idx_fingerprint=index_fingerprint(path_prefix),
                num_documents=len(documents),
                num_tokens=sum(document.num_tokens for document in documents),
                num_bytes=bin_path(path_prefix).stat().st_size,
            )
        )
    dataset = TokenDataset(
        source=source, eod_id=EOD, vocab_size=VOCAB_SIZE, prefixes=tuple(written)
    )
    write_token_dataset(tokens, dataset, {})


def _write_scores(folder: Path, source: str, num_records: int) -> None:
    records = range(num_records)
    scores = [score_of(record) for record in records]
    columns = {
        "record_id": [record_id(source, record) for record in records],
        "score": scores,
        "reason": ["unparsed" if score is None else None for score in scores],
    }
    table = pa.table(columns, schema=RECORD_SCORE_SCHEMA)
    half = num_records // 2
    for part, rows in enumerate((table[:half], table[half:])):
        path = folder / layout.record_scores(SCORING, source) / f"part-{part:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(path, rows)


def _train_entry(
    folder: Path, prefix: TokenPrefix, documents: Sequence[PlannedDocument], handover: str
) -> dict[str, Any]:
    path = folder / layout.keep(ARM) / f"{prefix.name}.keep.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    times: npt.NDArray[np.uint8] = np.array([each.times for each in documents], dtype=np.uint8)
    write_keep_mask(
        path,
        times > 0,
        read_index(prefix.path_prefix).document_tokens(),
        idx_fingerprint=prefix.idx_fingerprint,
        scores_fingerprint="0",
        repeats_D=times if times.max(initial=0) > 1 else None,
    )
    mask = read_keep_mask(path)
    name = f"{prefix.name}-{mask.info.selection_digest[:8]}"
    written = folder / layout.blend(ARM) / name
    written.parent.mkdir(parents=True, exist_ok=True)
    match handover:
        case "index_view":
            write_index_view(prefix.path_prefix, mask, written)
        case "physical_copy":
            write_physical_copy(prefix.path_prefix, mask, written)
        case _:
            name = f"../../{layout.tokens(prefix.source)}/{prefix.path_prefix.name}"
    return {
        "source": prefix.source,
        "name": prefix.name,
        "split": "train",
        "prefix": name,
        "num_tokens": sum(each.num_tokens * each.times for each in documents),
    }


def built_dataset(training: TracedTraining, content: Mapping[str, Any]) -> Any:
    """Returns the training dataset, built by Megatron as a trainer builds it, and cached.

    Within `one_process`. `content` is blend.json.
    """
    folder = training.run_folder / layout.blend(training.arm)
    prefixes = [
        str((folder / prefix).parent.resolve() / Path(prefix).name) for prefix in content["train"]
    ]
    settings: dict[str, Any] = {
        "random_seed": training.seed,
        "sequence_length": LENGTH,
        "blend_per_split": [(prefixes, content["train_weights"]), None, None],
        "path_to_cache": str(training.cache_folder),
        "tokenizer": BlendTokenizer(vocab_size=VOCAB_SIZE, eod=EOD),
        "reset_position_ids": False,
        "reset_attention_mask": False,
        "eod_mask_loss": False,
        "create_attention_mask": False,
    }
    dataset_class, config = GPTDataset, GPTDatasetConfig(**settings)
    if content["handover"] == "keep_mask_dataset":
        names = [entry["name"] for entry in content["entries"]]
        masks = [training.run_folder / layout.keep(ARM) / f"{name}.keep.npy" for name in names]
        keep_masks = dict(zip(prefixes, map(str, masks), strict=True))
        dataset_class = KeepMaskGPTDataset
        config = KeepMaskGPTDatasetConfig(**settings, keep_masks=keep_masks)
    sizes = [training.num_samples, None, None]
    return BlendedMegatronDatasetBuilder(dataset_class, sizes, lambda: True, config).build()[0]


def cached(training: TracedTraining, folder: Path, content: Mapping[str, Any]) -> TracedTraining:
    """Returns the training with an index cache of Megatron's in `folder`."""
    training = replace(training, cache_folder=folder)
    with one_process():
        built_dataset(training, content)
    return training


def sample_ids(sample: Mapping[str, Any]) -> list[int]:
    """Returns the tokens of a Megatron sample, the last label with them."""
    return [*sample["tokens"].tolist(), int(sample["labels"][-1])]


def span_ids(folder: Path, source: str, prefix: str, document: int) -> list[int]:
    """Returns the tokens of a document, straight from the token dataset's own .bin and .idx."""
    prefixes = read_token_dataset(folder / layout.tokens(source)).prefixes
    path_prefix = next(each.path_prefix for each in prefixes if each.name == prefix)
    index = read_index(path_prefix)
    ids = np.fromfile(bin_path(path_prefix), index.dtype)
    first, end = index.document_indices_D[document : document + 2]
    return [
        token
        for pointer, length in zip(
            index.pointers_S[first:end], index.lengths_S[first:end], strict=True
        )
        for token in ids[pointer // 4 : pointer // 4 + length].tolist()
    ]


def ids_of_spans(folder: Path, spans: Sequence[TracedSpan]) -> list[int]:
    """Returns the tokens that spans stand for, in their order, from the token datasets."""
    ids: list[int] = []
    for span in spans:
        assert span.sample_start == len(ids)
        whole = span_ids(folder, span.source, span.prefix, span.document)
        part = whole[span.document_start : span.document_start + span.num_tokens]
        assert len(part) == span.num_tokens
        ids.extend(part)
    return ids


def use_of_span(sample: Any, span: TracedSpan) -> RecordUse:
    """Returns the use that a span of a traced sample is."""
    return RecordUse(
        iteration=sample.iteration,
        micro_batch=sample.micro_batch,
        rank=sample.rank,
        row=sample.row,
        sample=sample.sample,
        sample_start=span.sample_start,
        document_start=span.document_start,
        num_tokens=span.num_tokens,
    )
