from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from baseline_runs import recipe_over, run_baselines, scores_of, table_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_reference import MAX_TOKENS, write_reference
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from mira_megatron.baselines.perplexity import NOT_FINITE, NOTHING_TO_PREDICT, band_scores
from mira_megatron.baselines.reference_model import ReferenceModel
from mira_megatron.baselines.token_windows import windows_of

TEXTS = ["for x in y:", "a", "zwölf Boxkämpfer", "<|endoftext|> in a text", "0" * 200]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference(tmp_path_factory.mktemp("reference"))


def transformers_loss(folder: Path, text: str, window_tokens: int) -> float:
    """Returns the loss that transformers itself reports for the first tokens of a text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    encoded = tokenizer(text, return_tensors="pt", split_special_tokens=True)
    ids = encoded["input_ids"][:, :window_tokens]
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=ids).loss)


def measured(recipe: Any, baseline: str, source: str) -> dict[str, tuple[float | None, int]]:
    """Returns loss and targets of every record by its text."""
    folder = recipe.run_folder
    records = table_of(folder / "records" / source)["text"].to_pylist()
    table = table_of(folder / "baselines" / baseline / "losses" / source)
    rows = zip(table["loss"].to_pylist(), table["num_targets"].to_pylist(), strict=True)
    return dict(zip(records, rows, strict=True))


def test_loss_of_every_record_is_that_of_transformers(tmp_path: Path, reference: Path) -> None:
    settings = {"method": "perplexity", "model": str(reference), "window_tokens": 48}
    recipe = recipe_over(tmp_path, {"texts": TEXTS}, {"ppl": settings})
    run_baselines(recipe)
    found = measured(recipe, "ppl", "texts")
    for text in TEXTS:
        loss, num_targets = found[text]
        if len(text) == 1:
            assert (loss, num_targets) == (None, 0)
        else:
            assert num_targets == min(len(text.encode()), 48) - 1
            assert loss == pytest.approx(transformers_loss(reference, text, 48), abs=1e-3)
    assert scores_of(recipe, "ppl", "texts")["a"] == (None, NOTHING_TO_PREDICT)


def test_batch_mates_of_another_length_change_no_loss(reference: Path) -> None:
    model = ReferenceModel(reference, "float32")
    windows = [window for ids in model.encode(TEXTS) for window in windows_of(ids, 32, 8)]
    together = model.losses(windows)
    for window, loss in zip(windows, together, strict=True):
        (alone,) = model.losses([window])
        np.testing.assert_allclose(loss, alone, atol=1e-4)  # float32 sums in another order


def test_tokens_are_those_of_the_models_own_file(reference: Path) -> None:
    text = "a\n  b<|endoftext|>"
    stock = Tokenizer.from_file(str(reference / "tokenizer.json"))
    stock.encode_special_tokens = True
    (ids,) = ReferenceModel(reference, "float32").encode([text])
    assert ids == stock.encode(text).ids
    assert len(ids) == len(text) - 1  # bytes, but for the line end with its blank


@given(st.integers(0, 60), st.integers(2, 12), st.data())
def test_windows_predict_every_token_but_the_first_once(
    num_tokens: int, window_tokens: int, data: st.DataObject
) -> None:
    ids = list(range(num_tokens))
    stride = data.draw(st.integers(1, window_tokens - 1))
    windows = windows_of(ids, window_tokens, stride)
    predicted = [token for window in windows for token in window.ids[window.first_target :]]
    assert predicted == ids[1:]
    for number, window in enumerate(windows):
        assert len(window.ids) <= window_tokens
        # A target has the overlap before it, at least.
        assert window.first_target == (window_tokens - stride if number else 1)
    first = windows_of(ids, window_tokens, None)
    assert first == windows[:1]


def test_middle_is_a_band_of_ranks_around_the_median() -> None:
    losses = np.array([0.0, 1, 2, 3, 50, 60, 70])
    scores = band_scores(losses, "middle", losses)
    assert np.argsort(-scores, kind="stable")[0] == 3
    assert sorted(np.argsort(-scores, kind="stable")[:3]) == [2, 3, 4]
    assert scores[0] == pytest.approx(scores[-1])


def test_equal_losses_have_equal_scores_in_every_band() -> None:
    losses = np.array([1.0, 2, 2, 2, 9])
    for band in ("middle", "low", "high"):
        assert len(set(band_scores(losses, band, losses)[1:4])) == 1


@pytest.mark.parametrize(("band", "best"), [("low", min), ("high", max)])
def test_ends_of_the_losses_are_kept_when_asked_for(
    tmp_path: Path, reference: Path, band: str, best: Any
) -> None:
    settings = {
        "method": "perplexity",
        "model": str(reference),
        "band": band,
        "window_tokens": MAX_TOKENS,
    }
    recipe = recipe_over(tmp_path, {"texts": TEXTS}, {"ppl": settings})
    run_baselines(recipe)
    losses = {text: loss for text, (loss, _) in measured(recipe, "ppl", "texts").items() if loss}
    scores = {text: score for text, (score, _) in scores_of(recipe, "ppl", "texts").items()}
    assert max(losses, key=lambda text: scores[text] or 0.0) == best(losses, key=losses.__getitem__)


def test_loss_that_is_no_number_is_null_with_its_reason(tmp_path: Path, reference: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(reference, broken)
    model = AutoModelForCausalLM.from_pretrained(reference)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    model.save_pretrained(broken)
    settings = {"method": "perplexity", "model": str(broken), "window_tokens": 32}
    recipe = recipe_over(tmp_path, {"texts": TEXTS}, {"ppl": settings})
    run_baselines(recipe)
    assert {loss for loss, _ in measured(recipe, "ppl", "texts").values()} == {None}
    scores = scores_of(recipe, "ppl", "texts")
    assert scores["a"] == (None, NOTHING_TO_PREDICT)
    assert {scores[text] for text in TEXTS if len(text) > 1} == {(None, NOT_FINITE)}


def test_median_is_of_the_whole_scope(tmp_path: Path, reference: Path) -> None:
    texts = {"one": TEXTS[:1], "two": TEXTS[2:]}
    settings = {"method": "perplexity", "model": str(reference), "window_tokens": 32}
    baselines = {scope: {**settings, "scope": scope} for scope in ("global", "source")}
    recipe = recipe_over(tmp_path, texts, baselines)
    run_baselines(recipe)
    assert scores_of(recipe, "source", "one")[TEXTS[0]][0] == 1.0  # alone, it is the median
    losses = measured(recipe, "global", "one") | measured(recipe, "global", "two")
    ordered = sorted(losses, key=lambda text: losses[text][0] or 0.0)
    place = (ordered.index(TEXTS[0]) + 0.5) / len(ordered)
    expected = 1 - abs(2 * place - 1)
    assert scores_of(recipe, "global", "one")[TEXTS[0]][0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_tokens": 65}, "window_tokens=65 is more than the 64 tokens"),
        ({"window_tokens": 8, "stride_tokens": 8}, "stride_tokens=8 must be in 1..7"),
        ({"band": "best"}, "band='best' must be one of"),
    ],
)
def test_settings_that_are_wrong_are_named(
    tmp_path: Path, reference: Path, settings: dict[str, Any], message: str
) -> None:
    baseline = {"method": "perplexity", "model": str(reference), **settings}
    recipe = recipe_over(tmp_path, {"texts": TEXTS}, {"ppl": baseline})
    with pytest.raises(ValueError, match="=") as refused:
        run_baselines(recipe)
    assert message in str(refused.value)
