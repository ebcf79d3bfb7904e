from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.scoring import key_files
from mira_megatron.scoring.key_files import KEY_DTYPE, NOWHERE, last_number, open_key_files

# Keys whose bytes are often equal, NUL or the greatest: where halving goes wrong if it does.
_KEYS = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.lists(st.sampled_from(b"\0\1\xff"), min_size=16, max_size=16).map(bytes),
    st.sampled_from([bytes(15) + bytes([last]) for last in range(4)]),
)


def _array(keys: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), KEY_DTYPE)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(_KEYS, max_size=12), max_size=6),
    st.lists(_KEYS, max_size=4),
    st.sampled_from([1, 2, 5, 100]),
    st.data(),
)
def test_key_is_found_where_it_came_first(
    tmp_path_factory: pytest.TempPathFactory,
    segments: list[list[bytes]],
    others: list[bytes],
    chunk_rows: int,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    expected: dict[bytes, tuple[int, int]] = {}
    with mock.patch.object(key_files, "_CHUNK_ROWS", chunk_rows):
        for number, keys in enumerate(segments, start=1):
            for row, key in enumerate(keys):
                expected.setdefault(key, (number, row))
            if data.draw(st.booleans()):
                open_key_files(folder, range(1, number + 1), lambda n: _array(segments[n - 1]))
        found = open_key_files(
            folder, range(1, len(segments) + 1), lambda n: _array(segments[n - 1])
        )
    asked = [*expected, *others]
    places = found.find(_array(asked))
    assert [place.item() for place in places] == [expected.get(key, (NOWHERE, 0)) for key in asked]
    assert len(found) == len(expected)
    assert last_number(folder) == len(segments)


def test_files_that_a_merge_was_killed_before_removing_count_once(tmp_path: Path) -> None:
    keys = [_array([bytes([number]) * 16]) for number in range(3)]
    open_key_files(tmp_path, [1], lambda number: keys[number])
    alone = next(tmp_path.iterdir())
    content = alone.read_bytes()
    open_key_files(tmp_path, [1, 2], lambda number: keys[number])
    assert [path.name for path in tmp_path.iterdir()] == ["keys-00000001-00000002.npy"]
    alone.write_bytes(content)
    assert len(open_key_files(tmp_path, [1, 2], lambda number: keys[number])) == 2
    assert not alone.exists()


def test_merging_leaves_files_of_which_each_is_far_larger_than_the_next(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    segments = [
        _array([generator.bytes(16) for _ in range(size)])
        for size in generator.integers(0, 30, 100).tolist()
    ]
    for last in range(1, 101):
        found = open_key_files(tmp_path, range(1, last + 1), lambda number: segments[number - 1])
        sizes = [len(file.rows_N) for file in found.files]
        assert all(before > 2 * after for before, after in pairwise(sizes))
    assert len(list(tmp_path.iterdir())) == len(found.files)
    assert len(found) == sum(map(len, segments))


def test_keys_of_a_segment_that_is_gone_are_gone(tmp_path: Path) -> None:
    keys = [_array([bytes([number]) * 16]) for number in range(9)]
    open_key_files(tmp_path, range(1, 9), lambda number: keys[number])
    left = [1, 2, 4, 5, 6, 7, 8]
    for _ in range(2):
        found = open_key_files(tmp_path, left, lambda number: keys[number])
        assert found.find(np.concatenate(keys))["segment"].tolist() == [0, 1, 2, 0, *left[2:]]
        assert all(file.last < 3 or file.first > 3 for file in found.files)
