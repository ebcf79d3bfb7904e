"""Scores and spans: what documents have of items, against a plain scanner and by hand."""

from __future__ import annotations

import pytest
from contamination_scans import SOLUTION, buffer_of, hits, item
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_contamination import plain_scores

from mira_megatron.eval.contamination.items import TRAIN, Item, Kind, Surface, TextForm
from mira_megatron.eval.contamination.matching import find
from mira_megatron.eval.contamination.needles import build_needles
from mira_megatron.eval.contamination.postings import hits_of

# Few words, so that texts share n-grams; a seed text of them, and pieces of it, to be leaked.
WORDS = st.lists(
    st.sampled_from(["for", "x", "in", "y", "(", ")", "1", ",", "é", "don't", "--", "\\n"]),
    max_size=40,
)
PIECES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), max_size=4)
LONG = " ".join(f"w{number % 23} {'=+('[number % 3]} v{number % 7}" for number in range(30)).split()


@st.composite
def texts_with_pieces(draw: st.DrawFn) -> str:
    words = list(draw(WORDS))
    for start, length in draw(PIECES):
        words += [*LONG[start : start + length], *draw(WORDS)]
    return " ".join(words)


@st.composite
def all_items(draw: st.DrawFn) -> list[Item]:
    return [
        Item(
            benchmark="bench",
            task_id=str(number),
            split=draw(st.sampled_from(["test", TRAIN])),
            cluster=draw(st.sampled_from("ab")),
            surfaces=tuple(
                Surface(
                    kind=kind,
                    form=draw(st.sampled_from([TextForm.CODE, TextForm.SQL, TextForm.PROSE])),
                    text=draw(texts_with_pieces()),
                )
                for kind in (Kind.PROMPT, Kind.TESTS)
            ),
        )
        for number in range(draw(st.integers(1, 3)))
    ]


@settings(max_examples=150, deadline=None)
@given(
    all_items(),
    st.lists(texts_with_pieces(), max_size=4),
    st.integers(1, 2),
    st.sampled_from([700, 1 << 18]),
)
def test_scores_are_those_of_a_plain_scanner(
    items: list[Item], documents: list[str], max_items: int, window_bytes: int
) -> None:
    needles = build_needles(items, max_items)
    content, offsets = buffer_of(documents)
    found = find(content, offsets, needles, window_bytes=window_bytes, overlap_bytes=350)
    scores = {}
    for form, matches in found.ngrams.items():
        for hit in hits_of(matches, needles.ngrams[form].postings, offsets, 0.0):
            name = needles.surfaces[hit.surface]
            scores[hit.document, name.benchmark, name.task_id, name.kind] = hit.score
    expected = plain_scores(items, documents, max_items)
    assert scores.keys() == expected.keys()
    assert scores == pytest.approx(expected, abs=1e-6)  # they are rounded to that


def test_copy_in_a_long_document_scores_one_and_is_where_it_lies() -> None:
    noise = "".join(f"value_{number} = other({number})\n" for number in range(40_000))
    assert len(noise) > 1 << 19  # several windows
    text = f"é{noise}{SOLUTION}{noise}"
    (hit,) = hits([item("a", SOLUTION)], ["nothing", text])
    assert (hit["record_id"], hit["task_id"], hit["score"]) == ("1", "a", 1.0)
    assert text[hit["start"] : hit["end"]] == SOLUTION.strip()


def test_half_of_a_solution_scores_about_a_half() -> None:
    half = SOLUTION[: SOLUTION.index("if sum")]
    (hit,) = hits([item("a", SOLUTION)], [half + "pass"])
    assert 0.2 < hit["score"] < 0.5


def test_span_is_the_closest_run_and_not_all_matches() -> None:
    line = "for row in table: if sum(row) % 2 == 0"
    text = line + "\n# nothing of it here" * 40 + SOLUTION
    (hit,) = hits([item("a", SOLUTION)], [text])
    assert text[hit["start"] : hit["end"]] == SOLUTION.strip()


def test_ngrams_that_many_items_share_count_for_none() -> None:
    items = [item(str(number), SOLUTION, cluster=str(number)) for number in range(3)]
    assert len(hits(items, [SOLUTION], max_items=3)) == 3
    assert hits(items, [SOLUTION], max_items=2) == []
    translations = [item(str(number), SOLUTION, cluster="one") for number in range(3)]
    assert len(hits(translations, [SOLUTION], max_items=1)) == 3


def test_training_split_changes_no_score_of_the_test_split() -> None:
    own = [item("a", SOLUTION), item("b", SOLUTION + "print(count_even_rows([], 3))\n" * 3)]
    train = [item(str(number), SOLUTION, split=TRAIN, cluster=str(number)) for number in range(9)]
    text = SOLUTION[:120]
    alone = hits(own, [text], max_items=2)
    assert alone
    beside = hits([*own, *train], [text], max_items=2)
    assert [hit for hit in beside if hit["split"] == "test"] == alone


@pytest.mark.parametrize(
    "text",
    ["return sorted(set(values), key=len)[0]", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14"],
)
def test_an_idiom_or_a_list_of_numbers_is_not_looked_for(text: str) -> None:
    needles = build_needles([item("a", text)], 10)
    assert [surface.is_measured for surface in needles.surfaces] == [False]
    assert hits([item("a", text)], [text]) == []


def test_prose_is_compared_by_its_words_alone() -> None:
    words = "Given a list of words, return how many of them begin and end with the same letter; "
    question = words + "an empty word (if there is one) counts too, and so does a single letter."
    changed = question.replace(",", " -").replace("; ", "\n* ")
    (hit,) = hits([item("a", question, form=TextForm.PROSE)], [changed])
    assert hit["score"] == 1.0
    assert hits([item("a", question)], [changed]) == []  # as code, no ten tokens are the same


def test_references_count_whole_and_test_names_by_their_share() -> None:
    swe = Item(
        benchmark="swe",
        task_id="apache__druid-13704",
        cluster="x",
        references=("apache/druid/pull/13704", "51dfde02840017092486fb75be2b16566aff6a19"),
        test_names=("tests/test_a.py::test_one", "tests/test_a.py::test_two"),
    )
    texts = [
        "see https://github.com/apache/druid/pull/13704#issuecomment-1",
        "https://github.com/apache/druid/pull/137045 is another",
        "git checkout 51dfde02840017092486fb75be2b16566aff6a19",
        "FAILED tests/test_a.py::test_two",
    ]
    found = [(hit["record_id"], hit["surface"], hit["score"]) for hit in hits([swe], texts)]
    assert found == [("0", "reference", 1.0), ("2", "reference", 1.0), ("3", "test_names", 0.5)]
