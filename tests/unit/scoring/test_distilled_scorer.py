"""Scoring with a recipe's own distilled scorers, by a model that is really run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from note_scorer import NoteScorer, serving
from tiny_scorer import write_tiny_scorer

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.distill.scorer_card import EXPORT, ScorerCard
from mira_megatron.manifest import Counts
from mira_megatron.rubric.anchor_files import read_anchors
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.scoring import score
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]

_GROUP, _RUBRIC = "text-notes", "given"
_FORM = PromptForm(prompt="bare", references=False, answers="compact")
_STRICT = {"engine": "transformers", "answer_mode": "expected", "max_tokens": 24}
# The tiny model answers nothing that can be read.
_TRANSFORMERS = {**_STRICT, "max_failed_fraction": 1.0}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the form of a scorer, too little trained to answer in it."""
    folder = tmp_path_factory.mktemp("model")
    return write_tiny_scorer(folder, ("depth", "use"), is_moe=False, num_steps=2)


def _distilling(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, values={**recipe.values, "distill": {}})


def write_scorer(workspace: Workspace, settings: tuple[Path, str]) -> WorkResult:
    """Writes what the stage `distill` leaves."""
    model, version = settings
    export = workspace.folder / EXPORT
    export.mkdir()
    for path in model.iterdir():
        (export / path.name).write_bytes(path.read_bytes())
    ScorerCard(
        rubric=_RUBRIC,
        group=_GROUP,
        family="text",
        rubric_version=version,
        prompt_key=score_prompt_key("text", _FORM),
        form=_FORM,
        max_record_tokens=64,
        max_model_len=700,
        served_model_name="given-text-notes",
    ).save(workspace.folder)
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def _distil(recipe: Recipe, model: Path, version: str | None = None) -> None:
    folder = recipe.run_folder / layout.anchors(recipe.rubric, _GROUP)
    found = read_anchors(folder / layout.ANCHORS)[0].rubric_version
    unit = Unit(
        stage="distill",
        name=_GROUP,
        folder=layout.scorer(recipe.rubric, _GROUP),
        version=1,
        config={},
        work=f"{__name__}:write_scorer",
        settings=(model, version or found),
    )
    run_unit(unit, Run(folder=recipe.run_folder), Resources())


def _score(recipe: Recipe) -> pa.Table:
    (unit,) = score.units(recipe)
    run_unit(unit, Run(folder=recipe.run_folder), Resources())
    return _rows(recipe.run_folder / unit.folder)


def _rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))


def _as_if_interrupted(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    origin = ("stage", "config", "inputs", "stage_version", "fingerprint")
    (folder / "intent.json").write_text(json.dumps({name: manifest[name] for name in origin}))
    (folder / "manifest.json").unlink()


def test_score_distilled_scorer_is_asked_in_its_own_form(
    judged_recipe: Make, tiny_model: Path
) -> None:
    recipe = _distilling(judged_recipe(score=_TRANSFORMERS))
    _distil(recipe, tiny_model)
    rows = _score(recipe)
    assert rows.num_rows == 20
    assert set(rows["model"].to_pylist()) == {"given-text-notes"}
    assert set(rows["answer_mode"].to_pylist()) == {"expected"}
    assert set(rows["prompt_key"].to_pylist()) == {score_prompt_key("text", _FORM)}
    assert max(rows["num_shown_tokens"].to_pylist()) <= 64  # in tokens of the scorer
    assert set(rows["status"].to_pylist()) == {"unparsed"}  # it was hardly trained


def test_score_model_here_that_answers_too_little_stops_the_run(
    judged_recipe: Make, tiny_model: Path
) -> None:
    recipe = _distilling(judged_recipe(score=_STRICT))
    _distil(recipe, tiny_model)
    with pytest.raises(ValueError, match=r"20 of 20 records got no usable answer .*unparsed 20"):
        _score(recipe)
    assert not list(recipe.run_folder.glob("ratings/**/manifest.json"))


def test_score_part_that_is_written_is_not_judged_again(
    judged_recipe: Make, tiny_model: Path
) -> None:
    recipe = _distilling(judged_recipe(score=_TRANSFORMERS))
    _distil(recipe, tiny_model)
    rows = _score(recipe)
    (unit,) = score.units(recipe)
    folder = recipe.run_folder / unit.folder
    parts = sorted(folder.glob("*.parquet"))
    marked = pq.read_table(parts[0])
    reasons = pa.array(["marked"] * marked.num_rows)
    place = marked.schema.get_field_index("reason")
    pq.write_table(marked.set_column(place, marked.schema.field(place), reasons), parts[0])
    parts[1].unlink()
    _as_if_interrupted(folder)
    again = _score(recipe)
    assert again["reason"].to_pylist()[:6] == ["marked"] * 6
    assert again["raw"].to_pylist() == rows["raw"].to_pylist()


def test_score_plan_needs_no_scorer(judged_recipe: Make) -> None:
    (unit,) = score.units(_distilling(judged_recipe(score=_TRANSFORMERS)))
    assert any(folder.startswith("scorers/") for folder in unit.upstream)
    assert unit.config["answer_mode"] == "expected"


def test_score_model_that_is_named_is_not_the_distilled_one(
    judged_recipe: Make, tiny_model: Path
) -> None:
    local = {**_TRANSFORMERS, "model_path": str(tiny_model)}
    (unit,) = score.units(_distilling(judged_recipe(score=local)))
    assert not [folder for folder in unit.upstream if folder.startswith("scorers/")]
    assert unit.raw_files is not None
    assert "model/model.safetensors" in unit.raw_files()
    rows = _score(judged_recipe(score=local))
    assert set(rows["model"].to_pylist()) == {tiny_model.name}


def test_score_scorer_of_another_rubric_version_is_refused(
    judged_recipe: Make, tiny_model: Path
) -> None:
    recipe = _distilling(judged_recipe(score=_TRANSFORMERS))
    _distil(recipe, tiny_model, version="of-last-week")
    with pytest.raises(
        ValueError, match=r"scorer\.json: .*version of-last-week, and .*anchors\.jsonl is version"
    ):
        _score(recipe)


def test_score_distilled_scorer_is_asked_for_digits_in_its_own_prompt(
    judged_recipe: Make, tiny_model: Path
) -> None:
    with serving(NoteScorer()) as scorer:
        endpoint = {
            **{"engine": "endpoint", "endpoints": [scorer.url], "answer_mode": "scores_only"},
            **{"temperature": 0, "top_p": 1, "max_tokens": 200, "min_mode_agreement": 0.9},
        }
        recipe = _distilling(judged_recipe(score=endpoint))
        _distil(recipe, tiny_model)
        folder = recipe.run_folder / layout.anchors(recipe.rubric, _GROUP)
        scorer.names = [anchor.name for anchor in read_anchors(folder / layout.ANCHORS)]
        mode, unit = score.units(recipe)
        run = Run(folder=recipe.run_folder)
        totals = run_unit(mode, run, Resources()).counts.totals
        run_unit(unit, run, Resources())
    # Both are asked about the record alone: only the mode tells their answers apart.
    assert totals == {"full: ok": 20, "mode: ok": 20}
    prompts = {json.dumps(body["messages"]) for body in scorer.bodies}
    assert len(prompts) == 20
    assert all(body["messages"][0]["content"].startswith("# Note") for body in scorer.bodies)
    rows = _rows(recipe.run_folder / unit.folder).to_pylist()
    digits = dataclasses.replace(_FORM, answers="digits")
    assert {row["prompt_key"] for row in rows} == {score_prompt_key("text", digits)}
    assert {len(row["raw"].split()) for row in rows} == {15}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_record_tokens": 64, "tokenizer": "x.json"}, "max_record_tokens is a distilled"),
        ({"temperature": 0.7}, "temperature=0.7: answer_mode=expected answers greedily"),
    ],
)
def test_score_setting_that_a_distilled_scorer_has_not_is_refused(
    judged_recipe: Make, settings: dict[str, Any], message: str
) -> None:
    recipe = _distilling(judged_recipe(score={**_TRANSFORMERS, **settings}))
    with pytest.raises(ValueError, match=message):
        score.units(recipe)


def test_score_model_neither_given_nor_distilled_is_refused(judged_recipe: Make) -> None:
    with pytest.raises(ValueError, match="score: engine=transformers needs model_path, or a sect"):
        score.units(judged_recipe(score=_TRANSFORMERS))
