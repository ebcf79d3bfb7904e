"""A proof of what training sees holds for what was made, and for nothing that was tampered with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from arm_folders import (
    SEQUENCE_LENGTH,
    Documents,
    documents_of,
    selecting,
    write_arm,
    write_run,
    write_source,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from token_datasets import EOD, VOCAB_SIZE, write_with_megatron

from mira_megatron import layout
from mira_megatron.atomic_files import link_relative, write_json
from mira_megatron.provenance.listed_documents import (
    expected_sequences,
    least_per_document,
    most_per_document,
    viewed_sequences,
)
from mira_megatron.provenance.replay import DataRequest, PrefixBlend
from mira_megatron.provenance.verify import verify
from mira_megatron.provenance.verify_foreign import verify_foreign
from mira_megatron.provenance.verify_report import PrefixReport, VerifyReport, print_verify
from mira_megatron.shards import write_parquet
from mira_megatron.tokenization.degraded_documents import COPY_SCHEMA
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    idx_path,
    read_index,
    write_index,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer

pytestmark = pytest.mark.megatron

LENGTHS = [5, 0, 9, 3, 12, 1, 7, 0, 6, 4, 11, 8]
LEFT = documents_of(LENGTHS, dropped=[2, 3], held_out=[4, 10])
RIGHT = documents_of([9, 9, 9, 9, 4, 4], dropped=[0], held_out=[1, 2])
HANDOVERS = ["index_view", "keep_mask_dataset", "physical_copy"]
SELECTION = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), min_size=8, max_size=30
)


def of(report: VerifyReport, split: str, name: str) -> PrefixReport:
    (found,) = (row for row in report.prefixes if (row.split, row.name) == (split, name))
    return found


def whats(report: VerifyReport) -> str:
    return "\n".join(f"{each.what} {' '.join(each.record_ids)}" for each in report.problems)


@pytest.mark.parametrize("handover", HANDOVERS)
def test_verify_of_what_was_made_holds_and_lists_the_tails_by_record(
    tmp_path: Path, handover: str
) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT, RIGHT]}, handover=handover)
    report = verify(tmp_path, ["half"], seed=3)
    assert report.problems == ()
    left = of(report, "train", "left")
    # 5 + 1 + 7 + 6 + 4 + 8 tokens: three samples of 8 and one more label, so six are left.
    assert (left.num_documents, left.num_tokens, left.num_samples) == (6, 31, 3)
    assert left.num_tail_tokens == 31 - 25
    assert {tail.record_id.split("/")[0] for tail in left.tail} == {"left"}
    assert {row.name for row in report.prefixes} == {"left", "right.0", "right.1"}


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(selection=SELECTION, handover=st.sampled_from(HANDOVERS))
def test_verify_counts_every_kept_document_as_often_as_its_repeats(
    tmp_path_factory: pytest.TempPathFactory,
    selection: list[tuple[int, int, bool]],
    handover: str,
) -> None:
    lengths = [length + 1 for length, _, _ in selection] + [20, 20]
    held_out = [number for number, (_, _, held) in enumerate(selection) if held] + [len(selection)]
    times = [0 if held else count for _, count, held in selection] + [0, 1]
    folder = tmp_path_factory.mktemp("run")
    made = Documents(lengths=lengths, times=times, held_out=held_out)
    write_run(folder, {"left": [made]}, handover=handover)
    report = verify(folder, ["half"], seed=5)
    assert report.problems == ()
    train = of(report, "train", "left")
    tail = {int(row.record_id.removeprefix("left/")) for row in train.tail}
    whole = Counter(count for number, count in enumerate(times) if count and number not in tail)
    seen = {row.times: row.num_documents for row in train.times_seen}
    for count in whole:  # documents of the tail are seen less often than selected, and add to these
        assert seen[count] >= whole[count]
    assert sum(seen.values()) == whole.total() + len(tail) == train.num_documents
    assert train.num_tokens_read + train.num_tail_tokens == int(np.dot(lengths, times))


def test_verify_names_a_document_that_the_mask_dropped(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT]})
    write_arm(
        tmp_path,
        {"left": [selecting(LEFT, [1] * 4 + [0] + [1] * 5 + [0, 1])], "right": [RIGHT]},
        arm="other",
    )
    _swap_view(tmp_path, "half", "other", "left-train")
    report = verify(tmp_path, ["half"], seed=3)
    assert "dropped: listed nevertheless left/2 left/3" in whats(report)
    assert not report.ok


def _swap_view(run_folder: Path, arm: str, other: str, start: str) -> None:
    """Puts another arm's .idx in the place of an arm's."""
    (own,) = (run_folder / f"blends/{arm}").glob(f"{start}-*.idx")
    (others,) = (run_folder / f"blends/{other}").glob(f"{start}-*.idx")
    own.write_bytes(others.read_bytes())


def test_verify_names_held_out_documents_and_copies_of_them_in_training(tmp_path: Path) -> None:
    copied = replace(RIGHT, texts={5: 77})
    left = replace(selecting(LEFT, [1] * 11 + [1]), texts={10: 77})  # keeps 4 and 10, held out
    write_run(tmp_path, {"left": [left], "right": [copied]})
    found = whats(verify(tmp_path, ["half"], seed=3))
    assert "held-out documents are trained on left/4 left/10" in found
    assert "copies of held-out documents are trained on right/5" in found


def test_verify_names_a_degraded_copy_that_says_what_a_held_out_document_says(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, {"left": [replace(LEFT, texts={10: 77})], "right": [RIGHT]})
    (documents,) = tmp_path.glob("tokens/right/*.records.parquet")
    said = [number.to_bytes(16, "big") for number in (77, 78)]
    copies = {"document": [5, 4], "degraded": ["shuffled"] * 2, "own_text_hash": said}
    write_parquet(documents.with_name(layout.COPIES), pa.table(copies, schema=COPY_SCHEMA))
    found = verify(tmp_path, ["half"], seed=3)
    assert whats(found).endswith("copies of held-out documents are trained on right/5")


def test_verify_names_copies_of_texts_held_out_in_a_source_outside_the_blend(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, {"left": [replace(LEFT, texts={6: 99})]})
    third = Documents(lengths=[4, 4], times=[0, 0], held_out=[0], texts={0: 99})
    write_source(tmp_path, "third", [third])
    report = verify(tmp_path, ["half"], seed=3, sources=["left", "third"])
    assert "copies of held-out documents are trained on left/6" in whats(report)
    assert "stands nowhere in blend.json" in whats(report)  # third's held-out document


def test_verify_finds_a_validation_that_is_not_the_held_out_documents(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    write_arm(tmp_path, {"left": [replace(LEFT, held_out=[4, 6, 10])]}, arm="other")
    _swap_view(tmp_path, "half", "other", "left-valid")
    found = whats(verify(tmp_path, ["half"], seed=3))
    assert "not held out, but validated on: listed nevertheless left/6" in found


def test_verify_finds_a_document_listed_once_too_often(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    (path,) = (tmp_path / "blends/half").glob("left-train-*.idx")
    prefix = path.with_suffix("")
    view = read_index(prefix)
    twice = [*range(len(view.lengths_S)), 0]
    longer = replace(
        view,
        lengths_S=view.lengths_S[twice],
        pointers_S=view.pointers_S[twice],
        document_indices_D=np.arange(len(twice) + 1),
    )
    write_index(path, longer)
    found = whats(verify(tmp_path, ["half"], seed=3))
    assert "listed more or less often than selected left/0" in found


def test_verify_finds_tokens_that_are_no_document_of_the_dataset(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    (path,) = (tmp_path / "blends/half").glob("left-train-*.idx")
    view = read_index(path.with_suffix(""))
    write_index(path, replace(view, pointers_S=view.pointers_S + 4 * (view.lengths_S == 8)))
    # The last document alone is 8 tokens long; it moved past the end of the .bin.
    assert "points to byte" in whats(verify(tmp_path, ["half"], seed=3))
    write_index(path, replace(view, pointers_S=view.pointers_S - 4 * (view.lengths_S == 8)))
    found = whats(verify(tmp_path, ["half"], seed=3))
    assert "1 sequences are none of the dataset's" in found
    assert "listed more or less often than selected left/11" in found


def _grow_bin(folder: Path) -> None:
    with bin_path(folder / "tokens/left/left-00000000").open("ab") as file:
        file.write(bytes(4))


def _write_other_index(folder: Path) -> None:
    path = folder / "tokens/left/left-00000000"
    index = read_index(path)
    shorter = index.lengths_S - np.eye(1, len(index.lengths_S), dtype=np.int32)[0]
    write_index(idx_path(path), replace(index, lengths_S=shorter))


def _lose_marker(folder: Path) -> None:
    next((folder / "blends/half").glob("left-train-*.view.json")).unlink()


def _change_marker(folder: Path) -> None:
    path = next((folder / "blends/half").glob("left-train-*.view.json"))
    write_json(path, {**json.loads(path.read_bytes()), "selection_digest": "0" * 32})


def _link_elsewhere(folder: Path) -> None:
    other = folder / "tokens/left/copy.bin"
    other.write_bytes(bin_path(folder / "tokens/left/left-00000000").read_bytes())
    link_relative(other, next((folder / "blends/half").glob("left-train-*.bin")))


def _lose_bin(folder: Path) -> None:
    bin_path(folder / "tokens/left/left-00000000").unlink()


def _lose_mask(folder: Path) -> None:
    (folder / "keep/half/left.keep.npy").unlink()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_grow_bin, "bytes"),
        (_write_other_index, "has fingerprint"),
        (_lose_marker, "view.json is missing"),
        (_change_marker, "has selection_digest 00000000000000000000000000000000"),
        (_link_elsewhere, "copy.bin"),
        (_lose_bin, "no such file"),
        (_lose_mask, "no such keep mask"),
    ],
)
def test_verify_names_a_file_that_is_not_the_one_it_was(
    tmp_path: Path, damage: Callable[[Path], None], found: str
) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    damage(tmp_path)
    assert found in whats(verify(tmp_path, ["half"], seed=3))


def test_verify_of_phases_names_documents_and_copies_seen_before(tmp_path: Path) -> None:
    left = replace(LEFT, texts={0: 5, 6: 6, 8: 6})
    write_run(tmp_path, {"left": [left]}, arm="first")
    times = [0] * 12
    times[5] = times[9] = times[2] = times[3] = 1
    write_arm(tmp_path, {"left": [selecting(left, times)]}, arm="second")
    report = verify(tmp_path, ["first", "second"], seed=3)
    # 5 and 9 are first's own; 2 and 3 it dropped.
    assert "of phase first are trained on left/5 left/9" in whats(report)
    assert verify(tmp_path, ["second"], seed=3).ok
    write_arm(tmp_path, {"left": [selecting(left, [0, 0, 1, 1] + [0] * 8)]}, arm="third")
    assert verify(tmp_path, ["first", "third"], seed=3).ok


def test_verify_counts_what_weights_repeat_and_skip(tmp_path: Path) -> None:
    run = {"left": [LEFT], "right": [RIGHT]}
    blend = write_run(tmp_path, run, train_weights=[0.92, 0.08])
    assert blend["num_train_samples"] == 5
    report = verify(tmp_path, ["half"], seed=3, num_samples=12)
    assert report.problems == ()
    left, right = of(report, "train", "left"), of(report, "train", "right")
    # Built: ceil(12 * 1.005) = 13 samples of left, which has 31 tokens in a pass: four epochs.
    assert (left.num_samples, left.num_epochs) == (15, 4)
    assert left.num_drawn + right.num_drawn == 12
    assert left.num_repeated > 0
    assert right.num_drawn < right.num_samples
    assert right.times_seen[0].times == 0


def test_verify_of_a_single_prefix_asked_for_more_counts_its_epochs(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT]})
    report = verify(tmp_path, ["half"], seed=3, num_samples=7)
    left = of(report, "train", "left")
    # 7 samples of 8 and a label are 57 tokens: two epochs of 31.
    assert (left.num_epochs, left.num_drawn, left.num_samples) == (2, 7, 7)
    assert report.problems == ()
    assert left.num_tokens_read == 57
    assert left.num_repeated > 0


def test_verify_says_when_training_would_stop_short(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT]})
    found = whats(verify(tmp_path, ["half"], seed=3, num_samples=100))
    assert "training asks for 100 samples and would stop after 5" in found


def test_verify_finds_a_prefix_that_the_blend_forgot(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT, RIGHT]})
    path = tmp_path / "blends/half/blend.json"
    blend: dict[str, Any] = json.loads(path.read_bytes())
    blend["train"].pop()
    last = [entry for entry in blend["entries"] if entry["split"] == "train"][-1]
    blend["entries"].remove(last)
    write_json(path, blend)
    report = verify(tmp_path, ["half"], seed=3)
    assert "right.1" in [problem.name for problem in report.problems]
    assert "stands nowhere in blend.json" in whats(report)


def foreign(folder: Path, **changes: Any) -> DataRequest:
    for name in ("a", "b"):
        write_with_megatron(folder / name, LENGTHS)
    prefixes = (str(folder / "a"), str(folder / "b"))
    settings: dict[str, Any] = {
        "blends": (PrefixBlend(prefixes=prefixes), None, None),
        "sequence_length": SEQUENCE_LENGTH,
        "seed": 3,
        "tokenizer": BlendTokenizer(vocab_size=VOCAB_SIZE, eod=EOD),
    }
    return DataRequest(**{**settings, **changes})


def test_verify_of_a_foreign_blend_says_what_is_seen_how_often(tmp_path: Path) -> None:
    report = verify_foreign(foreign(tmp_path, split="60,40,0"))
    assert report.problems == ()
    train, valid = (row for row in report.prefixes if row.name == "a")
    # Ten sequences, for two of twelve documents are empty: six to train, four to validation.
    assert (train.num_documents, valid.num_documents) == (6, 4)
    assert train.num_tokens + valid.num_tokens == sum(LENGTHS)
    assert {row.record_id.split()[0] for row in train.tail} == {"document"}


def test_verify_of_a_foreign_blend_finds_what_it_trains_and_validates_on(tmp_path: Path) -> None:
    both = PrefixBlend(prefixes=(str(tmp_path / "a"),))
    report = verify_foreign(foreign(tmp_path, blends=(both, both, None)))
    assert "10 documents are trained on as well" in whats(report)


def test_verify_of_a_foreign_blend_names_the_file_that_is_cut_short(tmp_path: Path) -> None:
    request = foreign(tmp_path)
    path = bin_path(tmp_path / "b")
    path.write_bytes(path.read_bytes()[:-4])
    report = verify_foreign(request)
    assert [problem.name for problem in report.problems] == [str(tmp_path / "b")]


def several_sequences(lengths: list[int], pointers: list[int]) -> SequenceIndex:
    """Returns an index whose first document has two sequences, the second none, the third one."""
    return SequenceIndex(
        dtype=np.dtype(np.int32),
        lengths_S=np.array(lengths, dtype=np.int32),
        pointers_S=np.array(pointers),
        document_indices_D=np.array([0, 2, 2, 3]),
    )


def test_document_of_several_sequences_counts_as_its_least_and_stays_whole() -> None:
    whole = several_sequences([4, 4, 2], [0, 16, 32])
    values = np.array([3, 1, 5])
    assert least_per_document(values, whole).tolist() == [1, 0, 5]
    assert most_per_document(values, whole).tolist() == [3, 0, 5]
    assert expected_sequences(whole, np.array([2, 7, 1])).tolist() == [0, 1, 0, 1, 2]


def test_sequences_are_found_by_their_place_in_any_order_and_refused_where_it_is_no_ones() -> None:
    whole = several_sequences([4, 0, 2], [32, 0, 0])
    view = several_sequences([2, 4, 0], [0, 32, 32])
    assert viewed_sequences(view, whole).tolist() == [2, 0, -2]
    other = several_sequences([3, 4, 2], [0, 28, 36])
    assert viewed_sequences(other, whole).tolist() == [-1, -1, -1]
    with pytest.raises(ValueError, match="lists the same tokens twice"):
        viewed_sequences(view, several_sequences([4, 4, 2], [0, 0, 16]))


def test_printed_report_names_problems_tails_and_how_often(tmp_path: Path) -> None:
    write_run(tmp_path, {"left": [LEFT], "right": [RIGHT]})
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    print_verify(console, verify(tmp_path, ["half"], seed=3, num_samples=100))
    text = console.export_text()
    assert "Problem: half train: training asks for 100 samples" in text
    assert "1 problems" in text
    assert "Tail of left: " in text
    assert "Documents read from end to end: " in text
    assert " once" in text
