from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus.pieces import pieces

MODULE = """import os

def first():
    a = 1

    return a


def second():
    return 2
"""


@given(st.text(st.sampled_from("ab \n\t")), st.integers(1, 20))
def test_pieces_joined_are_the_text(text: str, max_chars: int) -> None:
    found = list(pieces(text, max_chars))

    assert "".join(piece for _, piece in found) == text
    assert all(piece for _, piece in found)


@given(st.text(st.sampled_from("ab \n\t")), st.integers(1, 20))
def test_pieces_lines_are_where_they_begin(text: str, max_chars: int) -> None:
    start = 0
    for line, piece in pieces(text, max_chars):
        assert line == text[:start].count("\n") + 1
        start += len(piece)


def test_pieces_python_file_is_cut_between_definitions() -> None:
    found = list(pieces(MODULE, max_chars=60))

    assert [line for line, _ in found] == [1, 9]
    assert found[1][1] == "def second():\n    return 2\n"


def test_pieces_long_stretch_stays_whole() -> None:
    found = [piece for _, piece in pieces("a" * 9 + "\n\n" + "b\n", max_chars=4)]

    assert found == ["a" * 9 + "\n\n", "b\n"]


def test_pieces_everything_fits_is_one() -> None:
    assert list(pieces(MODULE, max_chars=1000)) == [(1, MODULE)]
