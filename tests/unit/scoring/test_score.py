from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mira_megatron.config import Recipe
from mira_megatron.manifest import Manifest
from mira_megatron.records import RATING_SCHEMA
from mira_megatron.scoring import score
from mira_megatron.stage import Resources, Run, Unit, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]


def _rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))


_ENDPOINT = {
    "engine": "endpoint",
    "model": "m",
    "temperature": 0,
    "top_p": 1,
    "max_tokens": 64,
    "endpoints": ["http://127.0.0.1:9/v1"],
}


def _unit(recipe: Recipe) -> Unit:
    (unit,) = [unit for unit in score.units(recipe) if unit.name == "notes"]
    return unit


def _score(recipe: Recipe) -> tuple[Manifest, Path]:
    """Returns the manifest and the folder of the one source's ratings."""
    unit = _unit(recipe)
    run = Run(folder=recipe.run_folder)
    return run_unit(unit, run, Resources()), run.folder / unit.folder


def _scorer(path: Path, **settings: Any) -> dict[str, Any]:
    """Returns the section `scorers` with settings of the notes' scorer."""
    return {"text-notes": {"anchors_path": str(path), **settings}}


def test_score_has_one_row_per_record_in_parts_like_the_records(judged_recipe: Make) -> None:
    recipe = judged_recipe()
    manifest, folder = _score(recipe)
    assert [part.num_rows for part in manifest.parts] == [6, 6, 6, 2]
    rows, records = _rows(folder), _rows(recipe.run_folder / "records/notes")
    assert rows.schema.equals(RATING_SCHEMA)
    assert rows["record_id"].to_pylist() == records["record_id"].to_pylist()
    assert set(rows["model"].to_pylist()) == {"rule-judge-2"}
    assert set(rows["view_policy"].to_pylist()) == {"whole"}


def test_score_content_key_is_that_of_equal_views_only(judged_recipe: Make) -> None:
    _, folder = _score(judged_recipe())
    keys = _rows(folder)["content_key"].to_pylist()
    assert len(set(keys)) == 20


def test_score_unit_does_not_depend_on_where_endpoints_are(judged_recipe: Make) -> None:
    here = _unit(judged_recipe(score=_ENDPOINT))
    there = _unit(judged_recipe(score={**_ENDPOINT, "endpoints": ["http://other/v1"]}))
    assert here.config == there.config
    hotter = _unit(judged_recipe(score={**_ENDPOINT, "temperature": 0.5}))
    assert here.config != hotter.config


def test_score_group_may_have_a_scorer_of_its_own(
    judged_recipe: Make, given_anchors_path: Path
) -> None:
    own = {"model": "own", "endpoints": ["http://own/v1"], "request_fields": {"top_k": 20}}
    recipe = judged_recipe(score=_ENDPOINT, scorers=_scorer(given_anchors_path, **own))
    unit = _unit(recipe)
    assert unit.config["model"] == "own"
    assert unit.config["request_fields"] == {"top_k": 20}
    assert isinstance(unit.settings, score.ScoreSettings)
    assert unit.settings.scorer.judge.config.endpoints == ["http://own/v1"]
    assert (
        unit.settings.scorer.judge.config.max_tokens == 64
    )  # what is not its own is the section's


def test_score_settings_that_all_scorers_give_are_not_needed_in_the_section(
    judged_recipe: Make, given_anchors_path: Path
) -> None:
    rest = {name: value for name, value in _ENDPOINT.items() if name not in ("model", "endpoints")}
    own = {"model": "own", "endpoints": ["http://own/v1"]}
    unit = _unit(judged_recipe(score=rest, scorers=_scorer(given_anchors_path, **own)))
    assert unit.config["model"] == "own"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": "x"}, "scorers.text-notes: unknown key 'modle'. Did you mean 'model'"),
        ({"max_tokens": "many"}, "scorers.text-notes.max_tokens"),
        ({"max_retries": 3}, "scorers.text-notes: unknown key 'max_retries'"),
        ({"model": "x"}, "score with scorers.text-notes: model is for engine=endpoint"),
    ],
)
def test_score_setting_of_a_scorer_that_does_not_fit_is_refused(
    judged_recipe: Make, given_anchors_path: Path, settings: dict[str, Any], message: str
) -> None:
    recipe = judged_recipe(scorers=_scorer(given_anchors_path, **settings))
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        score.units(recipe)


def test_score_released_scorer_without_references_is_refused(
    judged_recipe: Make, given_anchors_path: Path
) -> None:
    recipe = judged_recipe(scorers=_scorer(given_anchors_path, released=True))
    with pytest.raises(ValueError, match=r"anchors\.jsonl.*miscalibrated.*allow_uncalibrated"):
        _score(recipe)


def test_score_released_scorer_without_references_may_be_allowed(
    judged_recipe: Make, given_anchors_path: Path
) -> None:
    settings = {"released": True, "allow_uncalibrated": True}
    manifest, _ = _score(judged_recipe(scorers=_scorer(given_anchors_path, **settings)))
    assert manifest.counts.num_out == 20


def test_score_model_of_the_wrong_size_is_refused_before_anything_is_asked(
    judged_recipe: Make, given_anchors_path: Path, tmp_path: Path
) -> None:
    recipe = judged_recipe(
        score=_ENDPOINT, scorers=_scorer(given_anchors_path, model_path=str(tmp_path / "model"))
    )
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        _score(recipe)


def test_score_anchor_that_the_rule_judge_does_not_know_is_named(judged_recipe: Make) -> None:
    recipe = judged_recipe(scorers={"text-notes": {"published": "text-group3"}})
    with pytest.raises(ValueError, match=r"anchors\.jsonl: .*'Analytical Depth'"):
        _score(recipe)


def test_score_api_key_that_is_not_set_is_named(judged_recipe: Make) -> None:
    recipe = judged_recipe(score={**_ENDPOINT, "api_key_env": "NO_SUCH_KEY"})
    with pytest.raises(ValueError, match="NO_SUCH_KEY, which is not set"):
        _score(recipe)
