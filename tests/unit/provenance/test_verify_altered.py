"""A proof names what was altered after it was made: a blend, a mask, a copy, or tokens in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arm_folders import Documents, documents_of, write_arm, write_manifests, write_run
from rich.console import Console
from token_datasets import write_with_megatron

from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import MANIFEST
from mira_megatron.provenance.replay import DataRequest, PrefixBlend
from mira_megatron.provenance.verify import verify
from mira_megatron.provenance.verify_foreign import verify_foreign
from mira_megatron.provenance.verify_report import VerifyReport, print_verify
from mira_megatron.tokenization.index_file import bin_path
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer
from mira_megatron.tokenization.token_dataset import read_token_dataset, write_token_dataset

pytestmark = pytest.mark.megatron

LEFT = documents_of([5, 0, 9, 3, 12, 1, 7, 0, 6, 4, 11, 8], dropped=[2, 3], held_out=[4, 10])
RIGHT = documents_of([9, 9, 9, 9, 4, 4], dropped=[0], held_out=[1, 2])
TINY = documents_of([3, 2, 20], dropped=[], held_out=[2])
HANDOVERS = ["index_view", "keep_mask_dataset", "physical_copy"]
Blend = dict[str, Any]


def whats(report: VerifyReport) -> str:
    return "\n".join(f"{each.name} {each.what}" for each in report.problems)


def altered(run_folder: Path, alter: Callable[[Blend], object]) -> str:
    """Returns what is found of a blend.json after a change."""
    path = run_folder / "blends/half/blend.json"
    blend: Blend = json.loads(path.read_bytes())
    alter(blend)
    write_json(path, blend)
    return whats(verify(run_folder, ["half"], seed=3))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("handover", HANDOVERS)
def test_verify_against_manifests_holds_for_what_was_made(
    tmp_path: Path, handover: str, full: bool
) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT, RIGHT]}, handover=handover)
    write_manifests(tmp_path)
    report = verify(tmp_path, ["half"], seed=3, full=full)
    assert report.problems == ()
    is_unread = handover != "physical_copy" and not full
    assert ["--full" in note for note in report.notes] == [True] * is_unread


def test_verify_without_manifests_says_what_it_could_not_look_at(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    report = verify(tmp_path, ["half"], seed=3)
    assert report.ok
    unknown = [note.split(":")[0] for note in report.notes if f"no {MANIFEST}" in note]
    assert unknown == [str(tmp_path / name) for name in ("blends/half", "keep/half", "tokens/left")]


@pytest.mark.parametrize(
    "change",
    [
        {"train_weights": [0.1, 0.9]},
        {"sequence_length": 4},
        {"num_train_samples": 3},
        {"eod_id": 7},
        {"vocab_size": 99},
        {"comment": "nothing"},
    ],
)
def test_verify_finds_a_blend_json_that_is_not_the_one_that_was_made(
    tmp_path: Path, change: Blend
) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT]})
    write_manifests(tmp_path)
    assert "blend.json: this part's bytes changed" in altered(
        tmp_path, lambda blend: blend.update(change)
    )


def _move_to_left_out(blend: Blend) -> None:
    blend["left_out"].append(blend["entries"].pop(0))
    blend["train"].pop(0)


def _leave_out_and_list(blend: Blend) -> None:
    blend["left_out"].append(blend["entries"][0])


def _forget_in_train(blend: Blend) -> None:
    blend["train"].pop(0)


def _swap_train(blend: Blend) -> None:
    blend["train"].reverse()


def _give_twice(blend: Blend) -> None:
    blend["train"].append(blend["train"][0])


def _give_unknown(blend: Blend) -> None:
    blend["train"].append(blend["valid"][0])


def _name_unknown(blend: Blend) -> None:
    blend["entries"][0]["name"] = "other"


def _test_on_train(blend: Blend) -> None:
    blend["test"] = blend["train"]


@pytest.mark.parametrize(
    ("alter", "found"),
    [
        (_move_to_left_out, "left is left out, though its 31 tokens fill 3 samples"),
        (_leave_out_and_list, "left is both listed and left out"),
        (_forget_in_train, "is missing in train of blend.json"),
        (_swap_train, "train of blend.json has another order than its entries"),
        (_give_twice, "train of blend.json names a prefix twice"),
        (_give_unknown, "stands in train of blend.json and in none of its entries"),
        (_name_unknown, "other stands in blend.json, but no source of this run"),
        (_test_on_train, "test of blend.json is not its valid split"),
        (lambda blend: blend.update(sequence_length=4), "left blend.json says 3 samples"),
        (lambda blend: blend.update(sequence_length=0), "sequence_length=0 must be positive"),
        (lambda blend: blend.update(num_train_samples=9), "has num_train_samples 9"),
        (lambda blend: blend.update(eod_id=7), "left blend.json has eod_id 7"),
        (lambda blend: blend.update(vocab_size=99), "right blend.json has vocab_size 99"),
        (lambda blend: blend.update(train_weights=[1.0]), "1 weights for 2 prefixes"),
    ],
)
def test_verify_finds_a_blend_that_contradicts_itself_even_without_a_manifest(
    tmp_path: Path, alter: Callable[[Blend], object], found: str
) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT]})
    assert found in altered(tmp_path, alter)


def test_verify_of_a_prefix_left_out_rightly_only_notes_it(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT], "tiny": [TINY]})
    path = tmp_path / "blends/half/blend.json"
    blend: Blend = json.loads(path.read_bytes())
    blend["train"].pop()
    blend["left_out"].append(blend["entries"].pop(-2))
    write_json(path, blend)
    report = verify(tmp_path, ["half"], seed=3)
    assert report.problems == ()
    assert "half: train of tiny is left out: 5 tokens fill no sample" in report.notes


def test_verify_of_an_entry_that_says_too_little_names_the_file(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    with pytest.raises(ValueError, match=r"blend\.json: its entry left says nothing of num_tokens"):
        altered(tmp_path, lambda blend: blend["entries"][0].pop("num_tokens"))


def _other_masks(run_folder: Path) -> None:
    """Puts the masks of another selection where an arm's belong, arrays and descriptions."""
    fewer = replace(LEFT, times=[1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1])
    write_arm(run_folder, {"left": [fewer]}, arm="other", handover="keep_mask_dataset")
    for path in (run_folder / "keep/other").glob("left.keep.*"):
        shutil.copy(path, run_folder / "keep/half" / path.name)


@pytest.mark.parametrize("has_manifests", [False, True])
def test_verify_finds_masks_of_another_selection_in_their_place(
    tmp_path: Path, has_manifests: bool
) -> None:
    write_run(tmp_path, {"left": [LEFT]}, handover="keep_mask_dataset")
    if has_manifests:
        write_manifests(tmp_path)
    _other_masks(tmp_path)
    found = whats(verify(tmp_path, ["half"], seed=3))
    assert "left 4 documents, 21 tokens are selected" in found
    assert ("this part's bytes changed" in found) == has_manifests


def test_verify_finds_masks_that_were_made_anew_after_the_blend(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    write_manifests(tmp_path)
    manifest = (tmp_path / "blends/half" / MANIFEST).read_bytes()
    (tmp_path / "keep/half/scores.json").write_text("{}")
    write_manifests(tmp_path)
    (tmp_path / "blends/half" / MANIFEST).write_bytes(manifest)
    assert "was made of another keep/half than" in whats(verify(tmp_path, ["half"], seed=3))


def test_verify_finds_any_token_of_a_physical_copy(tmp_path: Path) -> None:
    many = Documents(lengths=[5] * 200, times=[1] * 199 + [0], held_out=[199])
    write_run(tmp_path, {"left": [many], "right": [RIGHT]}, handover="physical_copy")
    write_manifests(tmp_path)
    (path,) = (tmp_path / "blends/half").glob("left-train-*.bin")
    content = bytearray(path.read_bytes())
    for document in (1, 101):
        changed = content.copy()
        changed[document * 20] ^= 1
        path.write_bytes(changed)
        found = whats(verify(tmp_path, ["half"], seed=3))
        assert f"{path.name}: this part's bytes changed" in found


def test_verify_reads_tokens_that_changed_in_place_when_it_is_full(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    write_manifests(tmp_path)
    path = bin_path(tmp_path / "tokens/left/left-00000000")
    path.write_bytes(path.read_bytes()[::-1])
    report = verify(tmp_path, ["half"], seed=3)
    assert report.ok
    assert any(note.startswith("tokens of left were not read") for note in report.notes)
    assert "left-00000000.bin: this part's bytes" in whats(
        verify(tmp_path, ["half"], seed=3, full=True)
    )


def test_verify_finds_another_documents_table(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    write_manifests(tmp_path)
    path = tmp_path / "tokens/left/left.records.parquet"
    table = pq.read_table(path)
    hashes = pa.array([bytes(16)] * len(table), table.schema.field("text_hash").type)
    pq.write_table(table.set_column(3, table.schema.field("text_hash"), hashes), path)
    assert "left.records.parquet: this part's bytes" in whats(verify(tmp_path, ["half"], seed=3))
    path.write_bytes(path.read_bytes()[:-4])
    assert "Parquet magic bytes not found" in whats(verify(tmp_path, ["half"], seed=3))


def _adopt(run_folder: Path) -> Path:
    """Makes the pair of the only source one that lies elsewhere; returns its .bin."""
    folder = run_folder / "tokens/left"
    dataset = read_token_dataset(folder)
    (prefix,) = dataset.prefixes
    status = bin_path(prefix.path_prefix).stat()
    elsewhere = run_folder / "elsewhere"
    elsewhere.mkdir()
    for path in folder.glob("left-00000000.*"):
        shutil.copy2(path, elsewhere)
    moved = elsewhere / prefix.path_prefix.name
    adopted = replace(prefix, path_prefix=moved, mtime_ns=status.st_mtime_ns)
    write_token_dataset(folder, replace(dataset, prefixes=(adopted,)), {})
    return bin_path(moved)


def test_verify_of_an_adopted_pair_notes_that_it_has_no_digest_and_finds_it_rewritten(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, {"left": [LEFT]}, handover="physical_copy")
    path = _adopt(tmp_path)
    write_manifests(tmp_path)
    report = verify(tmp_path, ["half"], seed=3, full=True)
    assert report.problems == ()
    (note,) = report.notes
    assert note == "left is adopted: its .bin were compared by size and time of change only"
    path.write_bytes(path.read_bytes()[::-1])
    assert "when it was adopted" in whats(verify(tmp_path, ["half"], seed=3))


def test_verify_of_several_passes_over_one_prefix_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    report = verify(tmp_path, ["half"], seed=3, num_samples=7)
    (row,) = (row for row in report.prefixes if row.split == "train")
    (note,) = (note for note in report.notes if "passes are built" in note)
    assert note.startswith("half train left: 2 passes are built")
    assert f"{row.num_repeated} of 6 documents are read more often" in note
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    print_verify(console, report)
    assert note in console.export_text()


@pytest.mark.parametrize("num_samples", [0, -3])
def test_verify_of_no_samples_is_a_problem(tmp_path: Path, num_samples: int) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    found = whats(verify(tmp_path, ["half"], seed=3, num_samples=num_samples))
    assert f"num_samples={num_samples} must be positive" in found


@pytest.mark.parametrize("sequence_length", [20, 21, 1000])
def test_verify_of_samples_longer_than_everything_is_a_problem(
    tmp_path: Path, sequence_length: int
) -> None:
    write_with_megatron(tmp_path / "a", [12, 8])
    report = verify_foreign(
        DataRequest(
            blends=(PrefixBlend(prefixes=(str(tmp_path / "a"),)), None, None),
            sequence_length=sequence_length,
            seed=1,
            tokenizer=BlendTokenizer(vocab_size=1_000_000, eod=0),
        )
    )
    assert "a has not one sample" in whats(report)
