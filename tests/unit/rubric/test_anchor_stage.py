from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from anchor_material import anchors, every_topic, judgment, judgments

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.grouping.source_groups import NotYetKnown
from mira_megatron.manifest import Counts, Manifest
from mira_megatron.rubric.anchor import units
from mira_megatron.rubric.anchor_files import freeze, read_anchors, write_anchors
from mira_megatron.rubric.anchor_work import usable_judgments
from mira_megatron.shards import part_name, write_parquet
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit, unit_state

_SOURCE = {"format": "jsonl", "family": "text", "fields": {"text": "text"}, "paths": ["no.jsonl"]}
_ANCHOR = {
    "num_starts": 2,
    "num_reference_anchors": 12,
    "near_duplicate_cosine": 0.9,
    "merge_near_duplicates": False,
    "num_resamples": 1,
    "max_resample_strings": 1000,
}
_TOPICS = (
    *("readability", "testing", "security", "naming", "concurrency", "layout", "accuracy"),
    *("wording", "depth", "examples", "licensing", "speed", "types", "errors", "imports"),
    "logging",
)


def recipe_in(folder: Path, **sections: Any) -> Recipe:
    recipe = {
        "run_folder": str(folder / "run"),
        "seed": 3,
        "sources": {"a": _SOURCE, "b": _SOURCE},
        "group": {},
        "anchor": _ANCHOR,
        "embedder": {"engine": "tfidf_svd", "dimensions": 32, "max_chars": 1000},
        **sections,
    }
    path = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(recipe))
    return load_recipe(path)


def write_files(workspace: Workspace, settings: Mapping[str, Any]) -> WorkResult:
    """The work of a unit that stands where an earlier stage would: JSON, or a parquet part."""
    for name, content in settings.items():
        if isinstance(content, pa.Table):
            write_parquet(workspace.folder / name, content)
        else:
            write_json(workspace.folder / name, content)
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def finished(recipe: Recipe, folder: str, files: Mapping[str, Any]) -> None:
    unit = Unit(
        stage="earlier",
        name=folder,
        folder=folder,
        version=1,
        config={},
        work="test_anchor_stage:write_files",
        settings=files,
    )
    run_unit(unit, Run(folder=recipe.run_folder), Resources())


def founded(
    recipe: Recipe, sources: tuple[str, ...] = ("a", "b"), topics: tuple[str, ...] = _TOPICS
) -> None:
    """One group of the sources, and judgments about the topics in each."""
    entry = {"family": "text", "sources": list(sources), "method": "pinned"}
    groups = {"rubric": "mira", "groups": {"text-1": entry}}
    finished(recipe, layout.groups("mira", "text"), {layout.SOURCE_GROUPS: groups})
    for source in sources:
        rows = [
            judgment(
                0,
                0,
                float(time % 11),
                record_id=f"{source}{time}",
                source=source,
                dimension=topic.capitalize(),
                reason=f"the {topic} of {topic} shows {topic}, {time} times",
            )
            for number, topic in enumerate(topics)
            for time in range(number + 4)
        ]
        bad = judgment(0, 0, 5.0, source=source, dimension="[A1] x")
        finished(
            recipe,
            layout.judgments("mira", source),
            {part_name(0): judgments(rows), part_name(1): judgments([bad])},
        )


def run_in(recipe: Recipe, workers: int = 1) -> Manifest:
    (unit,) = units(recipe)
    return run_unit(unit, Run(folder=recipe.run_folder), Resources(workers=workers))


def test_anchor_writes_the_anchors_found_and_counts_what_it_left_out(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    founded(recipe)
    manifest = run_in(recipe)
    slots = read_anchors(tmp_path / "run/anchors/mira/text-1/anchors.jsonl")
    assert {slot.name.lower() for slot in slots} < set(_TOPICS)
    assert slots[0].rubric_version.startswith("mira-text-1-")
    assert manifest.counts.num_in == sum(slot.cluster_size or 0 for slot in slots) + 2
    assert manifest.counts.dropped == {"name unfit for a prompt": 2}
    assert [part.path for part in manifest.parts] == [
        "anchors.jsonl",
        "anchors.md",
        "clusters.json",
    ]


def test_anchor_clusters_file_tells_sizes_stability_and_version(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    founded(recipe)
    run_in(recipe)
    folder = tmp_path / "run/anchors/mira/text-1"
    clusters = orjson.loads((folder / "clusters.json").read_bytes())
    slots = read_anchors(folder / "anchors.jsonl")
    assert clusters["rubric_version"] == slots[0].rubric_version
    assert [slot["cluster_size"] for slot in clusters["slots"]] == [
        slot.cluster_size for slot in slots
    ]
    assert len(clusters["resamples"]["all"]) == 1
    assert (folder / "anchors.md").read_text().startswith("# text-1\n")


def test_anchor_writes_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    recipes = [recipe_in(tmp_path / str(workers)) for workers in (1, 2)]
    for recipe in recipes:
        founded(recipe)
    one, two = (run_in(recipe, workers) for workers, recipe in enumerate(recipes, start=1))
    assert one.parts == two.parts


def test_anchor_takes_only_judgments_of_the_groups_founders(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    founded(recipe, sources=("a",))
    joined = {"source": "b", "group": "text-1", "method": "nearest", "cosines": {}}
    finished(recipe, layout.joined("mira", "b"), {layout.SOURCE_GROUP: joined})
    (unit,) = units(recipe)
    assert unit.upstream == ("judgments/mira/a",)
    assert unit.raw_inputs == {"founder a": "text"}


def test_anchor_units_are_not_known_before_the_groups(tmp_path: Path) -> None:
    with pytest.raises(NotYetKnown, match="mira group"):
        units(recipe_in(tmp_path))


def test_anchor_without_its_section_makes_only_the_given_ones(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    founded(recipe)
    values = {key: value for key, value in recipe.values.items() if key != "anchor"}
    assert units(replace(recipe, values=values)) == []
    scorers = {"text-1": {"published": "text-group3"}}
    (unit,) = units(replace(recipe, values={**values, "scorers": scorers}))
    assert unit.work.endswith(":adopt")


def test_anchor_of_too_few_judgments_names_the_group(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    founded(recipe, topics=_TOPICS[:1])
    with pytest.raises(ValueError, match="source group text-1: 4 distinct judgments, but 15"):
        run_in(recipe)


def test_anchor_given_a_file_needs_no_judgments(tmp_path: Path) -> None:
    write_anchors(tmp_path / "mine.jsonl", anchors())
    recipe = recipe_in(tmp_path, scorers={"text-1": {"anchors_path": "mine.jsonl"}})
    founded(recipe)
    (unit,) = units(recipe)
    assert unit.upstream == ()
    run_in(recipe)
    assert read_anchors(tmp_path / "run/anchors/mira/text-1/anchors.jsonl") == anchors()


def test_anchor_given_a_file_that_changed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    write_anchors(path, anchors())
    recipe = recipe_in(tmp_path, scorers={"text-1": {"anchors_path": "mine.jsonl"}})
    founded(recipe)
    run_in(recipe)
    path.write_bytes(path.read_bytes().replace(b"Name 7", b"Renamed"))
    freeze(path)
    run_in(recipe)
    slots = read_anchors(tmp_path / "run/anchors/mira/text-1/anchors.jsonl")
    assert slots[6].name == "Renamed"
    (unit,) = units(recipe)
    assert unit_state(unit, Run(folder=recipe.run_folder)) == "done"


def test_anchor_given_an_edited_file_asks_for_a_version(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    write_anchors(path, anchors())
    path.write_bytes(path.read_bytes().replace(b"Name 7", b"Renamed"))
    recipe = recipe_in(tmp_path, scorers={"text-1": {"anchors_path": "mine.jsonl"}})
    founded(recipe)
    with pytest.raises(ValueError, match=r"mine\.jsonl.*mira rubric freeze"):
        run_in(recipe)


def test_anchor_given_a_published_table_copies_it(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, scorers={"text-1": {"published": "text-group3"}})
    founded(recipe)
    run_in(recipe)
    slots = read_anchors(tmp_path / "run/anchors/mira/text-1/anchors.jsonl")
    assert slots[6].name == "Repository Tree Navigation"


def test_usable_judgments_counts_what_it_drops_by_reason() -> None:
    rows = [
        *every_topic(2),
        judgment(0, 0, 5.0, dimension="Depth: 10/10"),
        judgment(0, 0, 5.0, reason="see [A1]"),
        judgment(0, 0, 5.0, part="qa"),
    ]
    usable, dropped = usable_judgments(judgments(rows), "text")
    assert len(usable) == len(every_topic(2))
    assert dropped == {
        "name unfit for a prompt": 1,
        "part of another family": 1,
        "reason unfit for a prompt": 1,
    }
