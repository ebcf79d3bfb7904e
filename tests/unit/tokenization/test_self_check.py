"""What the check of a fast encoder looks at, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from mira_megatron.tokenization.plain_encoders import HuggingFaceEncoder, TokenLists
from mira_megatron.tokenization.self_check import WINDOW_BYTES, first_difference, sample_places
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe

REFERENCE = HuggingFaceEncoder(train_byte_level_bpe(["some text to learn from"], 300))
PLAIN = [f"text number {number}" for number in range(200)]


@dataclass(frozen=True)
class Faulty:
    """An encoder that gives another last id for a text that holds `wrong`."""

    wrong: str
    name: str = "faulty"

    def encode(self, texts: pa.LargeStringArray) -> TokenLists:
        encoded = REFERENCE.encode(texts)
        ids_T = encoded.ids_T.copy()
        for number, text in enumerate(texts.to_pylist()):
            if self.wrong in text:
                ids_T[encoded.ends_D[number] - 1] += 1
        return TokenLists(ids_T, encoded.ends_D)


def difference_of(texts: list[str], wrong: str) -> int | None:
    """Which text is found to be encoded wrongly."""
    column = pa.array(texts, pa.large_string())
    faulty = Faulty(wrong)
    found = first_difference(column, faulty.encode(column), faulty, REFERENCE)
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (0, "FAULT"),
        (77, "the longest of them all: FAULT"),
        (123, "naïve FAULT"),
        (50, "x " * WINDOW_BYTES + "日本 FAULT" + " y" * WINDOW_BYTES),
    ],
)
def test_check_finds_a_fault_in_the_first_the_longest_and_the_unusual_text(
    position: int, text: str
) -> None:
    texts = [*PLAIN[:position], text, *PLAIN[position:]]
    assert difference_of(texts, "FAULT") == position


def test_check_finds_a_fault_in_every_text_of_a_few() -> None:
    assert difference_of(["a", "b FAULT", "c long one"], "FAULT") in (1, None)
    assert difference_of(["a FAULT", "b FAULT", "c FAULT"], "FAULT") == 0


def test_check_of_equal_encoders_finds_nothing() -> None:
    texts = [*PLAIN, "日本 ÄÖ 🙂" * WINDOW_BYTES, "", "x" * 10 * WINDOW_BYTES]
    assert difference_of(texts, "FAULT") is None
    assert difference_of([], "FAULT") is None
    assert difference_of([""], "FAULT") is None


def test_check_says_where_the_ids_part() -> None:
    column = pa.array(["one", "FAULT"], pa.large_string())
    expected = REFERENCE.encode(column)
    faulty = Faulty("one")
    found = first_difference(column, faulty.encode(column), faulty, REFERENCE)
    assert found is not None
    assert (found.text, found.start, found.token) == (0, 0, int(expected.ends_D[0]) - 1)
    assert found.found == int(expected.ids_T[found.token]) + 1
    assert found.expected == int(expected.ids_T[found.token])


def test_check_of_an_encoder_that_gives_too_few_ids_says_so() -> None:
    column = pa.array(["one"], pa.large_string())
    whole = REFERENCE.encode(column)
    short = TokenLists(whole.ids_T[:-1], whole.ends_D - 1)
    found = first_difference(column, short, REFERENCE, REFERENCE)
    assert found is not None
    assert (found.token, found.found) == (len(whole.ids_T) - 1, None)


def test_check_draws_other_texts_of_other_chunks_and_the_same_of_the_same() -> None:
    chunks = [pa.array([f"{n} {text}" for text in PLAIN], pa.large_string()) for n in range(20)]
    drawn = [tuple(text for text, _ in sample_places(chunk)) for chunk in chunks]
    assert drawn == [tuple(text for text, _ in sample_places(chunk)) for chunk in chunks]
    assert len(set(drawn)) > 10
    assert all(places[0] == 0 and len(places) <= 6 for places in drawn)


def test_check_of_part_of_a_column_looks_at_that_part() -> None:
    column = pa.array(["é FAULT", *PLAIN, "é"], pa.large_string()).slice(1)
    faulty = Faulty("FAULT")
    assert first_difference(column, faulty.encode(column), faulty, REFERENCE) is None
    assert np.array(sample_places(column))[:, 0].max() == len(PLAIN)
