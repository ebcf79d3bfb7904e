"""A source added to a finished run joins a group: it alone is read, rated and tokenised.

The group's scorer is then distilled anew, from the labels of old and new sources; the other groups'
scorers stay.
The selection is then that of all sources, and the same as that of a new run with the same founders.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml  # OmegaConf brings it
from smoke_runs import (
    ARM,
    SMOKE,
    STAGES,
    assert_done,
    before,
    content,
    copy_stages,
    files,
    leftovers,
    mira,
    smoke_words,
    stamps,
)

# What is made of all sources, and of those of the group that the new one joins.
SELECTION = (
    *(f"keep/{ARM}", f"sensitivity/{ARM}", f"blends/{ARM}", f"checkpoints/{ARM}"),
    "instruct_data/every_arm",  # it leaves out what any source holds out
    f"instruct/{ARM}",
    "report",
)
SCORER = ("sft/smoke/text-modules", "scorers/smoke/text-modules")


@pytest.fixture(scope="module")
def with_one_more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe with a source more, which comes first in it."""
    recipe = yaml.safe_load(SMOKE.read_text())
    added = {
        "format": "text_tree",
        "family": "text",
        "paths": ["{stdlib}/json/*.py", "{stdlib}/wsgiref/*.py"],
        "max_chars": 20000,
    }
    recipe["sources"] = {"added": added, **recipe["sources"]}
    path: Path = tmp_path_factory.mktemp("recipe") / "one_more.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def grown_run(
    finished_run: Path, with_one_more: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The finished run after `mira run` with one source more."""
    run = copy_stages(finished_run, tmp_path_factory.mktemp("grown") / "run", STAGES)
    assert_done(mira(*smoke_words("run", run, recipe=with_one_more)))
    return run


def test_source_added_leaves_every_other_source_untouched(
    finished_run: Path, grown_run: Path
) -> None:
    # copytree keeps modification times, so equal stamps say that nothing was written again.
    was, now = stamps(finished_run), stamps(grown_run)
    kept = {name: stamp for name, stamp in was.items() if not name.startswith(SELECTION + SCORER)}
    assert len(kept) > 30
    assert kept.items() <= now.items()
    assert leftovers(grown_run) == []


def test_source_added_recomputes_only_itself_its_scorer_and_the_selection(
    finished_run: Path, grown_run: Path
) -> None:
    was, now = files(finished_run), files(grown_run)
    made = {name for name in now if name.endswith("/manifest.json") and name not in was}
    made = {name.removesuffix("/manifest.json") for name in made}
    kept_aside = {name for name in made if ".superseded-" in name}
    assert made - kept_aside == {
        "records/added",
        "joined/smoke/added",
        "teacher_ratings/smoke/added",
        "reliability/smoke/added",
        "reliability_masks/smoke/added",
        "ratings/smoke/added",
        "record_scores/smoke/added",
        "tokens/added",
    }
    assert {name.split(".superseded-")[0] for name in kept_aside} == {*SELECTION, *SCORER}


def test_source_added_joins_the_group_it_is_most_like(grown_run: Path) -> None:
    joined = json.loads((grown_run / "joined/smoke/added/source_group.json").read_text())
    assert joined["group"] == "text-modules"
    assert joined["method"] == "nearest"
    founded = json.loads((grown_run / "groups/smoke/text/source_groups.json").read_text())
    assert founded["groups"]["text-modules"]["sources"] == ["modules"]


def test_source_added_keeps_the_old_selection_as_it_was(
    finished_run: Path, grown_run: Path
) -> None:
    was = stamps(finished_run)
    now = stamps(grown_run)
    for folder in (f"keep/{ARM}", f"blends/{ARM}"):
        (aside,) = (grown_run / folder).parent.glob(f"{ARM}.superseded-*")
        renamed = aside.relative_to(grown_run).as_posix()
        old = {name: stamp for name, stamp in was.items() if name.startswith(f"{folder}/")}
        assert old
        for name, stamp in old.items():
            assert now[name.replace(folder, renamed, 1)] == stamp
    links = list(grown_run.glob(f"blends/{ARM}.superseded-*/*.bin"))
    assert links
    assert all(link.is_symlink() and link.is_file() for link in links)


def test_source_added_gives_the_selection_of_a_new_run_with_these_founders(
    grown_run: Path, with_one_more: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    founders = "group.founders=[modules,questions,traces]"
    for stage in before("midtrain"):
        assert_done(mira(*smoke_words(stage, fresh, founders, recipe=with_one_more)))
    for name, path in files(fresh).items():
        assert content(path) == content(grown_run / name), name
    certificate = json.loads((grown_run / f"keep/{ARM}/selection.json").read_text())
    assert certificate["sources"]["added"]["num_kept"] > 0
