from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from grouping_runs import (
    CHINESE,
    CODE,
    EMBEDDER,
    ESSAY,
    GROUP,
    PROSE,
    grouped,
    read_json,
    recipe_of,
    run_units,
    texts_of,
)

from mira_megatron.config import Recipe
from mira_megatron.corpus import ingest
from mira_megatron.grouping.group import units
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.manifest import Manifest
from mira_megatron.stage import Resources, Run, run_unit, unit_state

THREE = {
    "novels": texts_of(PROSE),
    "essays": texts_of(ESSAY),
    "code": texts_of(CODE),
}


def groups_of(recipe: Recipe, family: str = "text") -> dict[str, list[str]]:
    founded = read_json(recipe, f"groups/mira/{family}/source_groups.json")["groups"]
    return {name: entry["sources"] for name, entry in founded.items()}


def digests(manifest: Manifest) -> dict[str, str]:
    return {part.path: part.digest for part in manifest.parts}


def test_like_sources_are_grouped_and_everything_is_written(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, THREE)
    (manifest,) = grouped(recipe).values()
    assert read_json(recipe, "groups/mira/text/source_groups.json") == {
        "rubric": "mira",
        "groups": {
            "text-code": {"family": "text", "sources": ["code"], "method": "similarity"},
            "text-essays": {
                "family": "text",
                "sources": ["essays", "novels"],
                "method": "similarity",
            },
        },
    }
    assert [part.path for part in manifest.parts] == [
        "groups.md",
        "sample.parquet",
        "similarity.json",
        "source_groups.json",
    ]
    assert (manifest.counts.num_in, manifest.counts.num_out) == (120, 90)
    assert sorted(source_groups(recipe)) == ["text-code", "text-essays"]


def test_chinese_html_is_grouped_apart_from_english_sources(tmp_path: Path) -> None:
    page = "<html><head><title>网页</title></head><body><p>"
    english = {"novels": texts_of(PROSE), "essays": texts_of(ESSAY)}
    recipe = recipe_of(tmp_path, {**english, "zhongwen": texts_of(CHINESE, start=page)})
    grouped(recipe)
    assert groups_of(recipe) == {
        "text-essays": ["essays", "novels"],
        "text-zhongwen": ["zhongwen"],
    }
    written = read_json(recipe, "groups/mira/text/similarity.json")
    assert written["sources"] == ["essays", "novels", "zhongwen"]
    assert max(written["cosines"][2][:2]) < 0.3 < written["cosines"][0][1]
    assert written["stability"] == {"adjusted_rand_index": 1.0, "num_resamples": 3}


def test_groups_are_the_same_for_any_order_of_rows_sources_and_workers(tmp_path: Path) -> None:
    first = grouped(recipe_of(tmp_path / "first", THREE))
    shuffled = {name: texts[::-1] for name, texts in reversed(THREE.items())}
    other = recipe_of(
        tmp_path / "other", shuffled, ingest={"records_per_part": 11, "max_bad_fraction": 0}
    )
    for folder, manifest in grouped(other, workers=2).items():
        assert digests(manifest) == digests(first[folder])


def test_sample_holds_what_is_embedded_sorted(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, THREE, embedder={**EMBEDDER, "max_chars": 20})
    grouped(recipe)
    sample = pq.read_table(recipe.run_folder / "groups/mira/text/sample.parquet").to_pylist()
    places = [(row["source"], row["record_id"]) for row in sample]
    assert places == sorted(places)
    assert {len(row["text"]) for row in sample} == {20}
    assert len(places) == 90


def test_families_are_founded_apart(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, THREE, families={"code": "qa"})
    assert sorted(grouped(recipe)) == ["groups/mira/qa", "groups/mira/text"]
    assert groups_of(recipe, "qa") == {"qa-code": ["code"]}
    assert groups_of(recipe) == {"text-essays": ["essays", "novels"]}


def test_founding_stays_when_sources_and_families_come_and_go(tmp_path: Path) -> None:
    pins = {"essays": "text-mine"}
    (before,) = grouped(recipe_of(tmp_path, THREE, pins=pins)).values()
    more = {**THREE, "poems": texts_of(PROSE, seed=2), "drill": texts_of(CODE, seed=3)}
    grown = recipe_of(tmp_path, more, pins=pins, families={"drill": "qa"})
    after = grouped(grown)
    assert after.pop("groups/mira/text") == before
    assert sorted(after) == ["groups/mira/qa", "joined/mira/poems"]
    shrunk = recipe_of(tmp_path, {"code": THREE["code"], "poems": more["poems"]})
    assert grouped(shrunk)["groups/mira/text"] == before


def test_founding_outlives_a_change_of_its_records(tmp_path: Path) -> None:
    (before,) = grouped(recipe_of(tmp_path, THREE)).values()
    with (tmp_path / "code.jsonl").open("ab") as rows:
        rows.write(orjson.dumps({"t": "return None"}) + b"\n")
    (after,) = grouped(recipe_of(tmp_path, THREE)).values()
    assert after == before


def test_only_named_founders_found(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, THREE, group={**GROUP, "founders": ["novels", "code"]})
    run_units(recipe, ingest.units(recipe))
    assert [unit.folder for unit in units(recipe)] == ["groups/mira/text", "joined/mira/essays"]
    assert list(units(recipe)[0].upstream) == ["records/code", "records/novels"]


def test_founder_that_is_no_source_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, THREE, group={**GROUP, "founders": ["novel"]})
    with pytest.raises(ValueError, match=r"recipe.yaml: group.founders: 'novel' is no source"):
        units(recipe)


def test_another_pin_of_a_founder_is_refused_by_name(tmp_path: Path) -> None:
    grouped(recipe_of(tmp_path, THREE))
    pinned = recipe_of(tmp_path, THREE, pins={"code": "text-code"})
    with pytest.raises(ValueError, match=r"group.pins.code was '\(absent\)' and is 'text-code'"):
        grouped(pinned)


def test_another_number_of_groups_is_refused_in_its_own_family_only(tmp_path: Path) -> None:
    families = {"code": "qa"}
    grouped(recipe_of(tmp_path, THREE, families=families))
    changed = recipe_of(
        tmp_path, THREE, families=families, group={**GROUP, "num_groups": {"qa": 1, "text": None}}
    )
    states = {u.name: unit_state(u, Run(folder=changed.run_folder)) for u in units(changed)}
    assert states == {"text": "done", "qa": "different"}


def test_group_of_two_families_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, {"a": ["x"]}, families={"a": "qa"}, pins={"a": "qa-with-think-math"}
    )
    with pytest.raises(
        ValueError, match=r"sources\.a is of family qa, but group qa-with-think-math"
    ):
        units(recipe)


def test_pin_that_could_not_be_a_folder_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"a": ["x"]}, pins={"a": "text-../x"})
    with pytest.raises(ValueError, match=r"sources.a: group: 'text-../x' is no name"):
        units(recipe)


def test_recipe_without_a_group_section_has_no_unit(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"a": ["x"]})
    del recipe.values["group"]  # type: ignore[attr-defined]
    assert units(recipe) == []


def test_interrupted_founding_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = grouped(recipe_of(tmp_path / "whole", THREE))["groups/mira/text"]
    recipe = recipe_of(tmp_path / "cut", THREE)
    grouped(recipe)
    folder = recipe.run_folder / "groups/mira/text"
    # What a kill before the last file leaves: the intent, and no manifest.
    (unit,) = units(recipe)
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    intent = {key: manifest[key] for key in ("stage", "config", "inputs", "stage_version")}
    (folder / "intent.json").write_bytes(
        orjson.dumps({**intent, "fingerprint": manifest["fingerprint"], "failure": None})
    )
    (folder / "manifest.json").unlink()
    (folder / "groups.md").unlink()
    resumed = run_unit(unit, Run(folder=recipe.run_folder), Resources())
    assert digests(resumed) == digests(whole)


def test_key_that_is_not_set_is_an_error_naming_it(tmp_path: Path) -> None:
    endpoint = {
        "engine": "endpoint",
        "model": "m",
        "dimensions": 3,
        "max_chars": 9,
        "endpoints": ["http://127.0.0.1:9/v1"],
        "api_key_env": "NO_SUCH_KEY",
    }
    recipe = recipe_of(tmp_path, {"a": ["x"]}, embedder=endpoint)
    with pytest.raises(ValueError, match=r"embedder\.api_key_env names NO_SUCH_KEY"):
        grouped(recipe)
