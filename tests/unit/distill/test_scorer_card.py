from dataclasses import replace
from pathlib import Path

import pytest

from mira_megatron.distill.scorer_card import ScorerCard, read_card
from mira_megatron.rubric.prompt_form import FULL, PromptForm

CARD = ScorerCard(
    rubric="mira",
    group="code",
    family="code",
    rubric_version="v1",
    prompt_key="key",
    form=PromptForm(prompt="full", references=False, answers="compact"),
    max_record_tokens=100,
    max_model_len=200,
    served_model_name="mira-code",
)


def test_card_is_read_as_it_was_saved(tmp_path: Path) -> None:
    for card in (CARD, replace(CARD, form=FULL)):
        card.save(tmp_path)
        assert read_card(tmp_path) == card


def test_card_that_is_missing_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scorer\.json: no scorer is here.*`mira distill`"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", "["),
        ('"schema_version": 1', '"schema_version": 2'),
        ('"group"', '"gruppe"'),
        ('"answers": "compact"', '"answers": "short"'),
        ('"schema_version": 1,', ""),
    ],
)
def test_card_that_is_not_one_names_the_file(tmp_path: Path, old: str, new: str) -> None:
    CARD.save(tmp_path)
    path = tmp_path / "scorer.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"scorer\.json: not a scorer's card .*Train it anew"):
        read_card(tmp_path)
