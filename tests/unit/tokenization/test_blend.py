"""The blend stage over token datasets and keep masks of known lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron import layout
from mira_megatron.config import load_recipe
from mira_megatron.manifest import Counts, Manifest
from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.retention.keep_masks import write_keep_mask
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit
from mira_megatron.tokenization.blend import units
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    index_fingerprint,
    one_sequence_per_document,
    read_index,
    write_index,
)
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    described_prefix,
    write_token_dataset,
)

HANDOVERS = ["index_view", "keep_mask_dataset", "physical_copy"]
SEQUENCE_LENGTH = 8
EOD, VOCAB_SIZE = 0, 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Tokens per document: those kept, those dropped and those held out, in this order.

    Token ids count up from `first_token`.
    """

    kept: Sequence[int] = (17,)
    dropped: Sequence[int] = (30,)
    held_out: Sequence[int] = (9,)
    first_token: int = 0

    @property
    def lengths(self) -> list[int]:
        return [*self.kept, *self.dropped, *self.held_out]

    def flags(self, *which: str) -> list[bool]:
        """Which documents belong to one of the parts named."""
        parts = ("kept", "dropped", "held_out")
        return [part in which for part in parts for _ in getattr(self, part)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blended:
    """A finished blend and where it lies."""

    content: dict[str, Any]
    manifest: Manifest
    folder: Path

    def entry(self, source: str, split: str) -> dict[str, Any]:
        """The entry of one prefix, readable or left out."""
        (found,) = [
            entry
            for entry in [*self.content["entries"], *self.content["left_out"]]
            if (entry["source"], entry["split"]) == (source, split)
        ]
        entry: dict[str, Any] = found
        return entry


def write_tokens(workspace: Workspace, source: Source) -> WorkResult:
    """The work of a unit that stands where tokenize would."""
    path_prefix = workspace.folder / f"{workspace.unit.name}-{workspace.fingerprint[:8]}"
    lengths = np.array(source.lengths, dtype=np.int64)
    index = one_sequence_per_document(lengths, np.dtype(np.uint16))
    bin_path(path_prefix).parent.mkdir(parents=True, exist_ok=True)
    ids = source.first_token + np.arange(lengths.sum(), dtype=np.uint16)
    bin_path(path_prefix).write_bytes(ids.astype(np.uint16).tobytes())
    write_index(idx_path(path_prefix), index)
    columns = {
        "record_id": [str(number) for number in range(len(lengths))],
        "num_tokens": lengths,
        "is_validation": source.flags("held_out"),
        "text_hash": [number.to_bytes(16, "big") for number in range(len(lengths))],
    }
    documents = pa.table(columns, schema=DOCUMENT_SCHEMA)
    write_parquet(path_prefix.with_name(f"{path_prefix.name}.records.parquet"), documents)
    name = workspace.unit.name
    table = path_prefix.with_name(f"{path_prefix.name}.records.parquet")
    prefix = described_prefix(name, name, path_prefix, table)
    dataset = TokenDataset(source=name, eod_id=EOD, vocab_size=VOCAB_SIZE, prefixes=(prefix,))
    write_token_dataset(workspace.folder, dataset, {})
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def write_masks(workspace: Workspace, sources: Mapping[str, Source]) -> WorkResult:
    """The work of a unit that stands where select would."""
    for name, source in sources.items():
        (index,) = (workspace.run.folder / layout.tokens(name)).glob("*.idx")
        write_keep_mask(
            workspace.folder / f"{name}.keep.npy",
            np.array(source.flags("kept"), dtype=bool),
            np.array(source.lengths, dtype=np.int64),
            idx_fingerprint=index_fingerprint(index.with_suffix("")),
            scores_fingerprint="s",
        )
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def write_tokenizer(workspace: Workspace, settings: object) -> WorkResult:
    """The work of a unit that stands where the tokenizer's would; nothing reads it here."""
    (workspace.folder / "tokenizer.json").write_bytes(b"{}")
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def upstream_units(sources: Mapping[str, Source]) -> list[Unit]:
    def unit(stage: str, name: str, folder: str, function: str, settings: object) -> Unit:
        return Unit(
            stage=stage,
            name=name,
            folder=folder,
            version=1,
            config={},
            work=f"test_blend:{function}",
            settings=settings,
        )

    return [
        unit("tokenize", "tokenizer", layout.TOKENIZER, "write_tokenizer", None),
        *(unit("tokenize", n, layout.tokens(n), "write_tokens", s) for n, s in sources.items()),
        unit("select", "mine", layout.keep("mine"), "write_masks", sources),
    ]


def blended(
    folder: Path,
    sources: Mapping[str, Source],
    *,
    handover: str = "index_view",
    sequence_length: int = SEQUENCE_LENGTH,
) -> Blended:
    """Runs what the stage reads, where that is not there yet, and the stage itself."""
    run = Run(folder=folder)
    for upstream in upstream_units(sources):
        run_unit(upstream, run, Resources())
    descriptor = {
        "format": "jsonl",
        "family": "text",
        "fields": {"text": "text"},
        "paths": ["never read.jsonl"],
    }
    values = {
        "run_folder": str(folder),
        "sources": dict.fromkeys(sources, descriptor),
        "arms": {"mine": {"score": "s", "scope": "global", "budget_tokens": 1}},
        "blend": {"handover": handover, "sequence_length": sequence_length},
    }
    (folder / "recipe.yaml").write_bytes(orjson.dumps(values))
    (unit,) = units(load_recipe(folder / "recipe.yaml"))
    manifest = run_unit(unit, run, Resources())
    content = orjson.loads((folder / unit.folder / "blend.json").read_bytes())
    return Blended(content=content, manifest=manifest, folder=folder / unit.folder)


@pytest.mark.parametrize("handover", HANDOVERS)
def test_blend_lists_a_prefix_per_source_and_split(tmp_path: Path, handover: str) -> None:
    made = blended(tmp_path, {"wiki": Source(), "code": Source()}, handover=handover)
    train, valid = made.content["train"], made.content["valid"]
    assert [Path(prefix).name.split("-")[0] for prefix in train] == ["code", "wiki"]
    assert [Path(prefix).name.rsplit("-", 1)[0] for prefix in valid] == ["code-valid", "wiki-valid"]
    assert made.content["test"] == valid
    assert made.content["left_out"] == []
    assert [entry["prefix"] for entry in made.content["entries"]] == [
        train[0],
        valid[0],
        train[1],
        valid[1],
    ]


@pytest.mark.parametrize("handover", HANDOVERS)
def test_blend_prefixes_are_relative_and_lead_to_the_kept_and_held_out_tokens(
    tmp_path: Path, handover: str
) -> None:
    source = Source(kept=[9, 10], dropped=[11], held_out=[12])
    made = blended(tmp_path, {"wiki": source}, handover=handover)
    (train,), (valid,) = made.content["train"], made.content["valid"]
    assert not Path(train).is_absolute()
    expected = [9, 10, 11, 12] if handover == "keep_mask_dataset" else [9, 10]
    assert read_index(made.folder / train).document_tokens().tolist() == expected
    assert read_index(made.folder / valid).document_tokens().tolist() == [12]
    assert (made.folder / made.content["tokenizer"]).is_file()


def test_blend_names_the_mask_that_keep_mask_dataset_needs_and_no_other(tmp_path: Path) -> None:
    made = blended(tmp_path, {"wiki": Source()}, handover="keep_mask_dataset")
    (train,) = made.content["train"]
    assert made.content["keep_masks"] == {train: "../../keep/mine/wiki.keep.npy"}
    assert (made.folder / made.content["keep_masks"][train]).is_file()
    assert made.entry("wiki", "valid")["keep_mask"] is None


@pytest.mark.parametrize("handover", ["index_view", "physical_copy"])
def test_blend_of_views_and_copies_names_no_mask(tmp_path: Path, handover: str) -> None:
    made = blended(tmp_path, {"wiki": Source()}, handover=handover)
    assert made.content["keep_masks"] == {}
    assert all(entry["keep_mask"] is None for entry in made.content["entries"])


def test_blend_repeats_what_training_needs_to_know(tmp_path: Path) -> None:
    made = blended(tmp_path, {"wiki": Source()})
    known = ("arm", "handover", "sequence_length", "eod_id", "vocab_size")
    assert [made.content[name] for name in known] == ["mine", "index_view", 8, EOD, VOCAB_SIZE]


# Neighbouring samples share a token: n samples of 8 need 8 n + 1 tokens.
@pytest.mark.parametrize(
    ("kept", "num_samples", "tail_tokens"),
    [
        ([17], 2, 0),
        ([18], 2, 1),
        ([24], 2, 7),
        ([25], 3, 0),
        ([9], 1, 0),
        ([5, 1, 12], 2, 1),
        ([8], 0, 8),
        ([1], 0, 1),
        ([], 0, 0),
    ],
)
@pytest.mark.parametrize("handover", HANDOVERS)
def test_blend_counts_samples_and_the_tail_they_leave(
    tmp_path: Path, handover: str, kept: list[int], num_samples: int, tail_tokens: int
) -> None:
    made = blended(tmp_path, {"wiki": Source(kept=kept), "code": Source()}, handover=handover)
    entry = made.entry("wiki", "train")
    assert (entry["num_samples"], entry["tail_tokens"]) == (num_samples, tail_tokens)
    assert (entry["num_documents"], entry["num_tokens"]) == (len(kept), sum(kept))


def test_blend_leaves_out_a_prefix_shorter_than_a_sequence_and_names_it(tmp_path: Path) -> None:
    made = blended(tmp_path, {"wiki": Source(kept=[8]), "code": Source(held_out=[8])})
    assert [(entry["source"], entry["split"]) for entry in made.content["left_out"]] == [
        ("code", "valid"),
        ("wiki", "train"),
    ]
    assert [Path(prefix).name.split("-")[0] for prefix in made.content["train"]] == ["code"]
    assert [Path(prefix).name.split("-")[0] for prefix in made.content["valid"]] == ["wiki"]


def test_blend_counts_what_is_left_out_among_the_dropped(tmp_path: Path) -> None:
    made = blended(tmp_path, {"wiki": Source(kept=[4, 4]), "code": Source(kept=[17])})
    counts = made.manifest.counts
    assert (counts.num_in, counts.num_out) == (3, 1)
    assert sum(counts.dropped.values()) == 2


@pytest.mark.parametrize(
    ("source", "split"), [(Source(kept=[8]), "train"), (Source(held_out=[8]), "valid")]
)
def test_blend_of_nothing_readable_says_which_split_and_the_way_out(
    tmp_path: Path, source: Source, split: str
) -> None:
    message = (
        rf"arm mine: no source has a whole sequence of 8 tokens for {split}\. "
        r"Lower blend\.sequence_length"
    )
    with pytest.raises(ValueError, match=message):
        blended(tmp_path, {"wiki": source})


def test_blend_of_nothing_readable_runs_with_the_shorter_sequences_it_asks_for(
    tmp_path: Path,
) -> None:
    sources = {"wiki": Source(kept=[8])}
    with pytest.raises(ValueError, match=r"Lower blend\.sequence_length"):
        blended(tmp_path, sources)
    made = blended(tmp_path, sources, sequence_length=7)
    assert made.entry("wiki", "train")["num_samples"] == 1


def test_blend_names_change_with_the_selection(tmp_path: Path) -> None:
    first, second = (
        blended(tmp_path / name, {"wiki": source}).content
        for name, source in {
            "one": Source(kept=[17], dropped=[30, 9]),
            "two": Source(kept=[17, 30], dropped=[9]),
        }.items()
    )
    assert first["train"] != second["train"]
    assert first["valid"] == second["valid"]


def tokens_of(path_prefix: Path) -> list[int] | None:
    """All tokens of a prefix in order, or None where it cannot be read."""
    try:
        index = read_index(path_prefix)
    except (FileNotFoundError, ValueError):
        return None
    stored = np.fromfile(bin_path(path_prefix), index.dtype)
    starts = index.pointers_S // index.dtype.itemsize
    spans = zip(starts.tolist(), index.lengths_S.tolist(), strict=True)
    return [token for start, length in spans for token in stored[start : start + length].tolist()]


def test_blend_whose_tokens_were_remade_never_shows_other_tokens(tmp_path: Path) -> None:
    # `mira tokenize` alone, after the records changed: the blend is out of date, not rewritten.
    made = blended(tmp_path, {"wiki": Source(kept=[17], dropped=[30])})
    view = made.folder / made.content["train"][0]
    before = tokens_of(view)
    _, tokens, _ = upstream_units({"wiki": Source(kept=[20], dropped=[40], first_token=500)})
    run_unit(replace(tokens, raw_inputs={"records": "new"}), Run(folder=tmp_path), Resources())
    assert tokens_of(view) in (before, None)


@settings(deadline=None, max_examples=25)
@given(
    kept=st.lists(st.integers(1, 30), max_size=8),
    sequence_length=st.integers(1, 12),
)
def test_blend_samples_and_tail_are_what_cutting_the_tokens_gives(
    tmp_path_factory: pytest.TempPathFactory, kept: list[int], sequence_length: int
) -> None:
    folder = tmp_path_factory.mktemp("blend")
    sources = {"wiki": Source(kept=kept), "code": Source(kept=[99], held_out=[99])}
    made = blended(folder, sources, sequence_length=sequence_length)
    entry = made.entry("wiki", "train")
    # One sample after another, each starting at the last token of the one before.
    starts = range(0, max(sum(kept) - sequence_length, 0), sequence_length)
    seen = {token for start in starts for token in range(start, start + sequence_length + 1)}
    assert entry["num_samples"] == len(starts)
    assert entry["tail_tokens"] == sum(kept) - len(seen) <= sequence_length
    assert (entry in made.content["left_out"]) == (not starts)
