from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import yaml  # OmegaConf brings it

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.pipeline import recipe_units, run_stages
from mira_megatron.scoring.scorers import scorer_config, scorer_judge
from mira_megatron.stage import Resources

RECIPE = Path(__file__).parents[2] / "recipes" / "released_scorers.yaml"
RELEASED = {
    *(f"whw06/MIRA-Text-Group{number}" for number in range(1, 4)),
    *(f"whw06/MIRA-QA-Group{number}" for number in range(1, 6)),
    *(f"whw06/MIRA-Agent-Group{number}" for number in range(1, 5)),
}
# Of the published serving command.
MAX_MODEL_TOKENS = 65_536
PROMPT_TOKENS = 6144  # set aside for anchors, references and template


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(RECIPE)


def test_every_released_scorer_has_a_group_of_its_own(recipe: Recipe) -> None:
    models = [scorer_judge(recipe, group).model for group in recipe.mapping("scorers")]
    assert len(models) == 12
    assert set(models) == RELEASED


def test_every_group_has_a_source_pinned_to_it(recipe: Recipe) -> None:
    pinned = [config.group for config, _ in recipe_sources(recipe).values()]
    assert sorted(map(str, pinned)) == sorted(recipe.mapping("scorers"))


def test_every_scorer_is_asked_as_published_and_checked_before_it_is(recipe: Recipe) -> None:
    for group, entry in recipe.mapping("scorers").items():
        judge = scorer_judge(recipe, group)
        assert judge.engine == "endpoint"
        assert (judge.temperature, judge.top_p, judge.max_tokens) == (0.7, 0.95, 2048)
        assert judge.max_record_tokens == MAX_MODEL_TOKENS - 2048 - PROMPT_TOKENS
        scorer = scorer_config(recipe, group)
        assert (scorer.released, scorer.allow_uncalibrated) == (True, False)
        assert str(entry["model"]).removeprefix("whw06/") == Path(str(scorer.model_path)).name
        assert scorer.tokenizer == f"{scorer.model_path}/tokenizer.json"


def test_no_two_groups_share_a_server_or_an_anchor_file(recipe: Recipe) -> None:
    scorers = [scorer_config(recipe, group) for group in recipe.mapping("scorers")]
    assert len({url for scorer in scorers for url in scorer.endpoints}) == 12
    assert len({scorer.anchors_path for scorer in scorers}) == 12


def test_plan_takes_the_given_anchors_and_needs_no_teacher(tmp_path: Path, recipe: Recipe) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    words = [f"scorers.{group}.tokenizer={tokenizer}" for group in recipe.mapping("scorers")]
    planned = load_recipe(RECIPE, [*words, f"tokenize.tokenizer={tokenizer}"])
    units = recipe_units(planned)
    by_stage = {
        stage: [unit.name for unit in units if unit.stage == stage]
        for stage in ("discover", "anchor", "label", "score")
    }
    assert by_stage["discover"] == by_stage["label"] == []
    assert sorted(by_stage["anchor"]) == sorted(planned.mapping("scorers"))
    retests = [f"retest of {group}" for group in planned.mapping("scorers")]  # they sample
    assert sorted(by_stage["score"]) == sorted([*planned.mapping("sources"), *retests])


def small_recipe(folder: Path, **scorer: object) -> Recipe:
    """Returns the recipe with one source of one record, for the scorer of Text-Group3."""
    (folder / "records.jsonl").write_text('{"text": "How to fix the parser."}\n')
    content = yaml.safe_load(RECIPE.read_text())
    source = {**content["sources"]["ct_fixbug"], "paths": ["records.jsonl"]}
    entry = {**content["scorers"]["text-group3"], "max_record_tokens": None, "tokenizer": None}
    content |= {
        "run_folder": str(folder / "run"),
        "sources": {"ct_fixbug": source},
        "scorers": {"text-group3": {**entry, **scorer}},
        "tokenize": {
            **content["tokenize"],
            "tokenizer": None,
            "train_vocab_size": 300,
            "train_on": ["ct_fixbug"],
            "train_chars": 1000,
        },
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path)


def test_released_scorer_without_references_is_refused_with_the_way_out(tmp_path: Path) -> None:
    given = {"anchors_path": None, "published": "text-group3"}
    with pytest.raises(ValueError, match=r"no calibration references.*allow_uncalibrated=true"):
        run_stages(small_recipe(tmp_path, **given), ["ingest", "anchor", "score"], Resources())


def test_model_that_is_not_whole_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    write_cut_off_model(tmp_path / "model")
    given = {
        "anchors_path": None,
        "published": "text-group3",
        "allow_uncalibrated": True,
        "model_path": str(tmp_path / "model"),
    }
    with pytest.raises(ValueError, match=r"hold 3 parameters, .* describes a model of 252"):
        run_stages(small_recipe(tmp_path, **given), ["ingest", "anchor", "score"], Resources())


def write_cut_off_model(folder: Path) -> None:
    folder.mkdir()
    config = {
        "model_type": "llama",
        "vocab_size": 10,
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}).encode()
    written = struct.pack("<Q", len(header)) + header + b"abc"
    (folder / "model.safetensors").write_bytes(written)
