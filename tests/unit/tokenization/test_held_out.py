from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import assume, given
from hypothesis import strategies as st

from mira_megatron.tokenization.held_out import choose_held_out

# Where in the hash space a text lies, in [0, 1), and its tokens.
Text = tuple[float, int]

# Few places, so that equal texts are the rule; tokens follow from the text, as in life.
TEXTS = st.lists(
    st.integers(0, 15).map(lambda place: (place / 16, 1 + place * 7 % 5)), min_size=1, max_size=12
)
FRACTION = st.sampled_from([0.01, 0.25, 0.5, 0.99])
NO_CAP = 10**9


def held_out(
    texts: Sequence[Text], *, fraction: float = 0.25, max_tokens: int = NO_CAP
) -> list[int]:
    """Positions of the documents held out."""
    hashes = [int(place * 2**128).to_bytes(16, "big") for place, _ in texts]
    is_held_out = choose_held_out(
        pa.array(hashes, pa.binary(16)),
        np.array([tokens for _, tokens in texts], dtype=np.int64),
        fraction=fraction,
        max_tokens=max_tokens,
    )
    assert len(is_held_out) == len(texts)
    return [position for position, held in enumerate(is_held_out.tolist()) if held]


def held_out_texts(texts: Sequence[Text], fraction: float, max_tokens: int = NO_CAP) -> set[Text]:
    return {texts[i] for i in held_out(texts, fraction=fraction, max_tokens=max_tokens)}


def chosen_slowly(texts: Sequence[Text], fraction: float, max_tokens: int) -> list[int]:
    """The same choice, one text after another."""
    distinct = sorted({text: texts.index(text) for text in texts}.items())
    chosen, total = [], 0
    for (place, tokens), position in distinct:
        if place < fraction and total + tokens <= max_tokens:
            chosen.append(position)
            total += tokens
    fitting = [position for (_, tokens), position in distinct if tokens <= max_tokens]
    shortest = min(distinct, key=lambda entry: entry[0][1])[1]
    return sorted(chosen) or fitting[:1] or [shortest]


def test_held_out_are_the_texts_low_in_the_hash_space() -> None:
    assert held_out([(0.2, 5), (0.5, 5), (0.1, 5), (0.25, 5)], fraction=0.25) == [0, 2]


def test_held_out_text_that_would_lift_the_sum_above_the_cap_is_passed_over() -> None:
    texts = [(0.1, 6), (0.15, 5), (0.2, 4)]
    assert held_out(texts, max_tokens=10) == [0, 2]
    assert held_out(texts, max_tokens=15) == [0, 1, 2]


def test_held_out_of_equal_texts_the_first_stands_for_all() -> None:
    assert held_out([(0.2, 4), (0.1, 4), (0.1, 4), (0.2, 4)], max_tokens=8) == [0, 1]


def test_held_out_is_never_empty_where_no_text_lies_low() -> None:
    assert held_out([(0.9, 5), (0.6, 5), (0.7, 5)]) == [1]


def test_held_out_where_none_lies_low_is_the_first_that_fits_the_cap() -> None:
    assert held_out([(0.9, 5), (0.6, 50), (0.7, 5)], max_tokens=10) == [2]


def test_held_out_where_all_are_longer_than_the_cap_is_the_shortest() -> None:
    assert held_out([(0.1, 30), (0.2, 20), (0.3, 40)], max_tokens=10) == [1]


def test_held_out_of_a_source_of_one_record_is_that_record() -> None:
    assert held_out([(0.9, 5)], max_tokens=1) == [0]


def test_held_out_of_no_records_is_empty() -> None:
    assert held_out([]) == []


def test_held_out_compares_all_bytes_of_a_hash() -> None:
    # Two texts whose hashes differ in the last byte alone are two texts.
    hashes = pa.array([bytes(15) + b"\x02", bytes(15) + b"\x01"], pa.binary(16))
    tokens = np.array([5, 5], dtype=np.int64)
    is_held_out = choose_held_out(hashes, tokens, fraction=0.5, max_tokens=5)
    assert is_held_out.tolist() == [False, True]


@given(texts=TEXTS, fraction=FRACTION, max_tokens=st.integers(1, 20))
def test_held_out_is_what_going_through_the_texts_one_by_one_gives(
    texts: list[Text], fraction: float, max_tokens: int
) -> None:
    expected = chosen_slowly(texts, fraction, max_tokens)
    assert held_out(texts, fraction=fraction, max_tokens=max_tokens) == expected


@given(texts=TEXTS, fraction=FRACTION, max_tokens=st.integers(1, 20), data=st.data())
def test_held_out_texts_do_not_depend_on_the_order_of_records(
    texts: list[Text], fraction: float, max_tokens: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(texts))
    expected = held_out_texts(texts, fraction, max_tokens)
    assert held_out_texts(shuffled, fraction, max_tokens) == expected


@given(texts=TEXTS, more=TEXTS, fraction=FRACTION)
def test_held_out_texts_stay_so_when_a_source_grows(
    texts: list[Text], more: list[Text], fraction: float
) -> None:
    assume(any(place < fraction for place, _ in texts))
    grown = held_out_texts([*more, *texts], fraction)
    assert held_out_texts(texts, fraction) == grown & set(texts)
