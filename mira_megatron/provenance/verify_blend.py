"""Whether a blend.json agrees with itself and with the token datasets it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.tokenization.blend_files import absolute_prefix, read_blend
from mira_megatron.tokenization.token_dataset import TokenDataset

_NEEDED = (
    "source",
    "name",
    "split",
    "prefix",
    "num_documents",
    "num_tokens",
    "num_samples",
)
_AS_MADE = "as `mira blend` writes it"


def read_whole_blend(folder: Path) -> dict[str, Any]:
    """Returns what `read_blend` does; ValueError names what an entry lacks."""
    blend = read_blend(folder)
    for entry in (*blend["entries"], *blend["left_out"]):
        missing = [name for name in _NEEDED if name not in entry]
        if missing:
            path, named = folder / layout.BLEND, entry.get("name", "without a name")
            raise ValueError(
                f"{path}: its entry {named} says nothing of {', '.join(missing)}. Make it anew "
                "with `mira blend`."
            )
    return blend


def check_lists(
    folder: Path, blend: Mapping[str, Any], names: Iterable[str]
) -> Iterator[tuple[str, str, str, str]]:
    """Yields (split, name, what, expected) where Megatron's lists are not those of the entries.

    `names` are the prefixes that the token datasets have. Nothing is to be replayed of such a
    blend: nobody could say which prefix is whose.
    """
    known = set(names)
    for entry in blend["entries"]:
        if entry["name"] not in known:
            what = "stands in blend.json, but no source of this run has such a prefix"
            yield entry["split"], entry["name"], what, f"one of {', '.join(sorted(known))}"
    for split in ("train", "valid"):
        entries = [entry for entry in blend["entries"] if entry["split"] == split]
        stated = {absolute_prefix(folder, entry["prefix"]): entry["name"] for entry in entries}
        given = [str(prefix) for prefix in blend[split]]
        given_ones = set(given)
        for prefix, name in stated.items():
            if prefix not in given_ones:
                yield split, name, f"its {prefix} is missing in {split} of blend.json", _AS_MADE
        for prefix in given:
            if prefix not in stated:
                what = f"{prefix} stands in {split} of blend.json and in none of its entries"
                yield split, "", what, _AS_MADE
        if given != list(stated) and sorted(given) == sorted(stated):
            yield split, "", f"{split} of blend.json has another order than its entries", _AS_MADE
        elif len(given) != len(given_ones):
            yield split, "", f"{split} of blend.json names a prefix twice", _AS_MADE


def check_numbers(
    blend: Mapping[str, Any], datasets: Iterable[TokenDataset]
) -> Iterator[tuple[str, str, str, str]]:
    """Yields (split, name, what, expected) where a number of blend.json follows from others."""
    if blend["test"] != blend["valid"]:
        yield "test", "", "test of blend.json is not its valid split", "the same prefixes"
    for dataset in datasets:
        for field in ("eod_id", "vocab_size"):
            given, wanted = blend[field], getattr(dataset, field)
            if given != wanted:
                what = f"blend.json has {field} {given:,}"
                yield "", dataset.source, what, f"{wanted:,}, as the token dataset"
    length = blend["sequence_length"]
    total = 0
    for entry in blend["entries"]:
        samples = samples_of(entry["num_tokens"], length)
        total += samples if entry["split"] == "train" else 0
        if entry["num_samples"] != samples:
            what = f"blend.json says {entry['num_samples']:,} samples"
            expected = f"{samples:,}: {entry['num_tokens']:,} tokens in samples of {length:,}"
            yield entry["split"], entry["name"], what, expected
    if blend["num_train_samples"] != total:
        what = f"blend.json has num_train_samples {blend['num_train_samples']:,}"
        yield "train", "", what, f"{total:,}, the samples of its entries"


def samples_of(num_tokens: int, sequence_length: int) -> int:
    """Returns the samples of one pass: each is followed by one label more."""
    return max(num_tokens - 1, 0) // max(sequence_length, 1)
