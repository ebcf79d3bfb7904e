from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.answers.stop_words import cut_at_stop

_WORDS = st.lists(st.text("ab\n", max_size=3), max_size=3)


@given(st.text("ab\n"), _WORDS)
def test_cut_text_is_the_longest_beginning_without_a_stop_word(text: str, stop: list[str]) -> None:
    words = [word for word in stop if word]

    cut = cut_at_stop(text, stop)

    assert text.startswith(cut)
    assert not any(word in cut for word in words)
    # Were it longer, it would touch a stop word.
    assert cut == text or any(text.startswith(word, len(cut)) for word in words)


def test_cut_text_ends_at_the_first_place_whichever_word_it_is() -> None:
    assert cut_at_stop("x = 1\nprint(x)\nassert x", ["\nassert", "\nprint("]) == "x = 1"
