from __future__ import annotations

from pathlib import Path

import pytest
from baseline_runs import recipe_over, run_baselines, scores_of, table_of
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.baselines.dataman_prompt import (
    CRITERIA,
    DOMAINS,
    dataman_messages,
    format_dataman,
    parse_dataman,
    prepared,
)
from mira_megatron.rubric import rule_judge

SCORES = tuple([3, 4] * 7)
ANSWER = format_dataman("H", SCORES)
LINES = ANSWER.splitlines()


@given(st.sampled_from(sorted(DOMAINS)), st.tuples(*[st.integers(1, 5)] * len(CRITERIA)))
def test_answer_is_read_as_it_was_written(domain: str, scores: tuple[int, ...]) -> None:
    parsed = parse_dataman(format_dataman(domain, scores))
    assert (parsed.domain, parsed.scores, parsed.status) == (domain, scores, "ok")


def test_answer_with_names_is_read_too() -> None:
    named = [f"[{number}]{name}:4/5" for number, name in enumerate(CRITERIA, start=1)]
    assert parse_dataman("\n".join(["Domain:H", *named])).scores == (4,) * len(CRITERIA)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("\n".join(LINES[:-1]), "14 lines, expected 15"),
        ("\n".join(LINES[:5] + LINES[6:]), "14 lines, expected 15"),
        ("\n".join([*LINES, "5"]), "16 lines, expected 15"),
        ("\n".join([LINES[1], LINES[0], *LINES[2:]]), "line 1 is '3', expected a letter A to O"),
        ("\n".join([*LINES[:3], "6", *LINES[4:]]), "line 4 is '6', expected Language Consistency"),
        ("\n".join([*LINES[:3], "", *LINES[4:]]), "line 4 is '', expected Language Consistency"),
        ("\n".join(["H", "[2]Coherence:4/5", *LINES[2:]]), "line 2 is '[2]Coherence:4/5'"),
        ("\n".join(["P", *LINES[1:]]), "line 1 is 'P'"),
        ("", "0 lines"),
    ],
)
def test_answer_that_lacks_or_swaps_a_line_is_not_read_at_all(answer: str, reason: str) -> None:
    parsed = parse_dataman(answer)
    assert (parsed.scores, parsed.domain, parsed.status) == (None, None, "unparsed")
    assert reason in str(parsed.reason)


def test_prompt_asks_for_fourteen_criteria_and_a_domain() -> None:
    system, user = dataman_messages("x = 1", None)
    assert system == {"role": "system", "content": "You are a helpful assistant."}
    assert user["content"].startswith(
        "Please score the text on fourteen evaluation criteria and specify its domain:\n"
        "Text: x = 1\nDomain:_\n[1]Accuracy:_/5\n[2]Coherence:_/5\n"
    )
    assert user["content"].endswith("\n[13]Sensitivity:_/5\n[14]Overall Score:_/5")


def test_text_is_prepared_as_published() -> None:
    assert prepared('"...and so on\n![](a.png)\nend', None) == "and so on\nend"
    long = "a" * 10_000 + "b" * 5_000 + "c" * 10_000
    assert prepared(long, None) == "a" * 10_000 + "c" * 10_000
    assert prepared("d" * 20_000, None) == "d" * 20_000
    assert prepared("some text", str.upper) == "SOME TEXT"


def test_rule_judge_answers_in_its_form_and_under_its_own_name(tmp_path: Path) -> None:
    texts = [
        f'"""Adds {n}."""\n\ndef f(x):\n    """Adds {n}."""\n    return x + {n}\n' for n in range(5)
    ]
    settings = {"method": "dataman", "engine": "rule_judge"}
    recipe = recipe_over(tmp_path, {"code": texts}, {"dataman": settings})
    run_baselines(recipe)
    answers = table_of(recipe.run_folder / "baselines/dataman/answers/code")
    assert set(answers["model"].to_pylist()) == {rule_judge.MODEL_NAME}
    assert set(answers["status"].to_pylist()) == {"ok"}
    found = scores_of(recipe, "dataman", "code")
    overall = {each[-1] for each in answers["scores"].to_pylist()}
    assert {score for score, _ in found.values()} == overall
    assert overall <= {1, 2, 3, 4, 5}
