"""Segments of answers, and what is made again of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stored_answers import ONE, key, left_journal, stored

from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.segment_files import SCHEMA


def _filled(folder: Path, num_answers: int = 10, num_segments: int = 1) -> Path:
    """Returns the folder of segments that hold so many answers each."""
    for first in range(0, num_segments * num_answers, num_answers):
        with AnswerStore(folder) as store:
            for number in range(first, first + num_answers):
                store.put(stored(number, f"text {number}"))
    return folder / "segments"


def _known(folder: Path) -> list[int]:
    store = AnswerStore(folder)
    known = store.known([key(number) for number in range(3_000)])
    numbers = [int(name, 16) for name in known]
    assert known == {key(number): stored(number, f"text {number}") for number in numbers}
    assert len(store) == len(numbers)
    return sorted(numbers)


def test_segment_has_the_columns_of_an_answer_in_the_order_of_the_journal(tmp_path: Path) -> None:
    (segment,) = _filled(tmp_path).glob("*.parquet")
    table = pq.read_table(segment)
    assert table.schema.equals(SCHEMA)
    assert [name.hex() for name in table["key"].to_pylist()] == [key(n) for n in range(10)]
    assert table["charged_prompt_tokens"].to_pylist() == [10] * 10


def test_answers_lie_in_groups_of_few_rows_or_bytes(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        for number in range(600):
            store.put(stored(number, f"text {number}"))
        for number in range(600, 606):
            store.put(stored(number, "long" * 400_000))
    (segment,) = tmp_path.glob("segments/*.parquet")
    metadata = pq.read_metadata(segment)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sizes == [512, 91, 3]
    store = AnswerStore(tmp_path)
    assert store.get(key(599)) == stored(599, "text 599")
    assert store.get(key(605)) == stored(605, "long" * 400_000)


def test_segment_and_the_journal_it_was_made_of_count_once(tmp_path: Path) -> None:
    journal = left_journal(tmp_path, stored(1, "text 1"), stored(2, "text 2"))
    kept = shutil.copy(journal, tmp_path / "kept")
    assert len(AnswerStore(tmp_path)) == 2
    shutil.copy(kept, journal)
    again = AnswerStore(tmp_path)
    assert (len(again), again.charged("m")) == (2, ONE + ONE)
    assert not journal.exists()


@pytest.mark.parametrize("deleted", ["keys-*.npy", "keys-00000001-*.npy", "keys-*-00000020.npy"])
def test_keys_that_were_deleted_are_made_again(tmp_path: Path, deleted: str) -> None:
    segments = _filled(tmp_path, num_segments=20)
    num_files = len(list(segments.glob("keys-*.npy")))
    for path in segments.glob(deleted):
        path.unlink()
    assert _known(tmp_path) == list(range(200))
    assert 0 < len(list(segments.glob("keys-*.npy"))) <= num_files + 1


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'de", b"nothing of numpy"])
def test_keys_that_are_damaged_are_made_again(tmp_path: Path, content: bytes) -> None:
    (keys,) = _filled(tmp_path).glob("keys-*.npy")
    for damaged in (content, keys.read_bytes()[:-1]):
        keys.write_bytes(damaged)
        assert _known(tmp_path) == list(range(10))


def test_keys_of_another_segment_never_give_a_wrong_answer(tmp_path: Path) -> None:
    segments = _filled(tmp_path)
    (segment,) = segments.glob("*.parquet")
    other = _filled(tmp_path / "other")
    with AnswerStore(tmp_path / "changed") as store:
        for number in reversed(range(10)):
            store.put(stored(number))
    (changed,) = (tmp_path / "changed" / "segments").glob("*.parquet")
    shutil.copy(changed, segment)
    with pytest.raises(ValueError, match=rf"{segment}: row 3 of group 0 answers another.*Delete"):
        AnswerStore(tmp_path).get(key(3))
    for path in segments.glob("keys-*.npy"):
        path.unlink()
    assert AnswerStore(tmp_path).get(key(3)) == stored(3)
    assert other.is_dir()


def _flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


@pytest.mark.parametrize("damage", ["footer", "cut", "empty", "page"])
def test_segment_that_is_damaged_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    segments = _filled(tmp_path, num_answers=300)
    (segment,) = segments.glob("*.parquet")
    content = segment.read_bytes()
    text = pq.read_metadata(segment).row_group(0).column(4)
    place = text.data_page_offset + text.total_compressed_size // 2
    segment.write_bytes(
        {
            "footer": _flip(content, len(content) - 6),
            "cut": content[: len(content) // 2],
            "empty": b"",
            "page": _flip(content, place),
        }[damage]
    )
    with pytest.raises(ValueError, match=rf"{segment}: damaged .*delete it"):
        AnswerStore(tmp_path).get(key(1))
    segment.unlink()  # the way out
    assert _known(tmp_path) == []
    assert key(1) not in AnswerStore(tmp_path)
    with AnswerStore(tmp_path) as store:
        store.put(stored(1, "text 1"))
    assert _known(tmp_path) == [1]


def test_keys_of_many_segments_lie_in_few_files(tmp_path: Path) -> None:
    segments = _filled(tmp_path, num_answers=2, num_segments=70)
    assert len(list(segments.glob("*.parquet"))) == 70
    assert len(list(segments.glob("keys-*.npy"))) <= 7
    assert _known(tmp_path) == list(range(140))


def test_answers_are_found_in_more_segments_than_stay_open(tmp_path: Path) -> None:
    _filled(tmp_path, num_answers=100, num_segments=12)
    store = AnswerStore(tmp_path)
    for number in [*range(0, 1200, 97), *range(0, 1200, 50)]:
        assert store.get(key(number)) == stored(number, f"text {number}")
