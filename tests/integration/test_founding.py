"""A rubric is founded once: what comes, goes or changes later leaves groups and anchors alone."""

from __future__ import annotations

import json
import shutil
import signal
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml  # OmegaConf brings it
from jsonl_corpora import text_source, write_jsonl, write_recipe
from smoke_runs import (
    ARM,
    OTHER_JUDGE,
    SMOKE,
    Ended,
    assert_done,
    assert_refused,
    at_once,
    differences,
    files,
    killed_at,
    leftovers,
    mira,
    smoke,
    stamps,
)

STDLIB = Path(sysconfig.get_path("stdlib"))
RUBRIC = ("groups/", "judgments/", "anchors/")
CALLS_OF_FOUNDING = 6  # of os.replace: the intent, four files, the manifest
TRACES = {
    "format": "python_doctest_traces",
    "family": "agent",
    "paths": ["{stdlib}/[d-f]*.py", "{stdlib}/collections/*.py"],
    "max_chars": 6000,
    "max_records": 8,
}


class Corpus:
    """Two sources of texts and one of questions in a folder, and the recipes over them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.run = folder / "run"

    def write(self, source: str, package: str, *more: str) -> Path:
        """Writes a package's modules, and more texts, as the raw file of a source."""
        modules = sorted((STDLIB / package).glob("*.py"))
        rows = [{"text": text} for path in modules if (text := path.read_text()[:3000].strip())]
        return write_jsonl(
            self._folder / f"{source}.jsonl", [*rows, *({"text": text} for text in more)]
        )

    def sources(self) -> dict[str, Any]:
        """Returns the descriptors of the sources that found the rubric."""
        questions = {**yaml.safe_load(SMOKE.read_text())["sources"]["questions"]}
        questions.update(paths=["{stdlib}/[a-c]*.py"], max_records=8)
        texts = {
            # Paths from the recipe's folder, so that a copy of the folder is the same corpus.
            name: text_source(Path(f"{name}.jsonl"))
            for name in ("letters", "pages")
        }
        return {**texts, "questions": questions}

    def mira(self, command: str, sources: Mapping[str, Any], *words: str) -> Ended:
        """Runs a command of a recipe over these sources that ends with the report."""
        return mira(command, self.recipe(sources), f"run_folder={self.run}", *words)

    def recipe(self, sources: Mapping[str, Any]) -> Path:
        """Writes a recipe without training."""
        name = "_".join(sorted(sources))
        path = write_recipe(self._folder / f"{name}.yaml", sources, ["letters"])
        recipe = yaml.safe_load(path.read_text())
        del recipe["midtrain"]
        recipe["group"]["by"] = "family"
        recipe["group"]["num_resamples"] = 0
        path.write_text(yaml.safe_dump(recipe))
        return path


@pytest.fixture(scope="module")
def founded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a corpus and of a finished run over it."""
    folder = tmp_path_factory.mktemp("founded")
    corpus = Corpus(folder)
    corpus.write("letters", "email")
    corpus.write("pages", "http", *(f"Line {number}." for number in range(4)))
    corpus.write("notes", "json", *(f"Note {number}." for number in range(4)))
    assert_done(corpus.mira("run", corpus.sources()))
    return folder


@pytest.fixture
def founded(founded_once: Path, tmp_path: Path) -> Corpus:
    """A finished run of one's own."""
    return Corpus(shutil.copytree(founded_once, tmp_path / "founded", symlinks=True))


@pytest.fixture
def ingested(founded: Corpus, founded_once: Path) -> Corpus:
    """A run that has records and nothing else."""
    for path in founded.run.iterdir():
        if path.name not in ("records", ".raw_digests"):
            shutil.rmtree(path)
    return founded


def rubric_stamps(run: Path) -> dict[str, tuple[int, bytes]]:
    return {name: stamp for name, stamp in stamps(run).items() if name.startswith(RUBRIC)}


def sources_by_group(run: Path, family: str) -> dict[str, list[str]]:
    content = json.loads((run / f"groups/smoke/{family}/source_groups.json").read_text())
    return {name: group["sources"] for name, group in content["groups"].items()}


def record_ids(folder: Path) -> list[str]:
    parts = sorted(folder.glob("part-*.parquet"))
    return [value for part in parts for value in pq.read_table(part)["record_id"].to_pylist()]


def test_source_removed_later_leaves_the_rubric_and_the_rest_runs_on(founded: Corpus) -> None:
    made = stamps(founded.run)
    sources = founded.sources()
    del sources["pages"]
    assert_done(founded.mira("run", sources))
    now = stamps(founded.run)
    selection = ("keep/", "blends/", "report/")
    kept = {name: stamp for name, stamp in made.items() if not name.startswith(selection)}
    assert kept.items() <= now.items()
    assert sources_by_group(founded.run, "text") == {"text": ["letters", "pages"]}
    certificate = json.loads((founded.run / f"keep/{ARM}/selection.json").read_text())
    assert set(certificate["sources"]) == {"letters", "questions"}


def test_source_removed_and_named_again_gives_the_run_as_it_was(founded: Corpus) -> None:
    sources = founded.sources()
    made = {name: path.read_bytes() for name, path in files(founded.run / "keep").items()}
    assert_done(founded.mira("run", {name: sources[name] for name in ("letters", "questions")}))
    assert_done(founded.mira("run", sources))
    now = {name: path.read_bytes() for name, path in files(founded.run / "keep").items()}
    manifest = f"{ARM}/manifest.json"  # says that it was taken back
    del made[manifest], now[manifest]
    assert made.items() <= now.items()


def test_founder_whose_records_changed_is_rated_on_the_rubric_as_it_was(founded: Corpus) -> None:
    made = rubric_stamps(founded.run)
    founded.write("letters", "email", "A text that nobody had when the groups were found.")
    done = founded.mira("run", founded.sources())
    assert_done(done)
    assert rubric_stamps(founded.run) == made
    for unit in ("group text", "discover letters"):
        warned = f"{unit}: already done, and kept although records/letters changed since"
        assert warned in done.output
    (before_it,) = founded.run.glob("records/letters.superseded-*")
    ids = record_ids(founded.run / "records/letters")
    assert len(set(ids) - set(record_ids(before_it))) == 1
    for folder in ("ratings", "record_scores"):
        assert record_ids(founded.run / folder / "smoke/letters") == ids


def test_family_added_later_founds_itself_and_leaves_the_others_alone(founded: Corpus) -> None:
    made = rubric_stamps(founded.run)
    assert_done(founded.mira("run", {**founded.sources(), "traces": TRACES}))
    now = rubric_stamps(founded.run)
    assert made.items() <= now.items()
    of_agents = ("groups/smoke/agent/", "judgments/smoke/traces/", "anchors/smoke/agent/")
    assert all(name.startswith(of_agents) for name in now.keys() - made.keys())
    assert sources_by_group(founded.run, "agent") == {"agent": ["traces"]}
    lines = (founded.run / "anchors/smoke/agent/anchors.jsonl").read_text().splitlines()
    assert {json.loads(line)["medoid"]["source"] for line in lines} == {"traces"}


def test_founding_killed_anywhere_and_run_again_gives_the_same_bytes(
    ingested: Corpus, tmp_path: Path
) -> None:
    recipe = ingested.recipe(ingested.sources())
    expected = shutil.copytree(ingested.run, tmp_path / "expected")
    assert_done(mira("group", recipe, f"run_folder={expected}"))

    def wrong(call: int) -> list[str]:
        run = shutil.copytree(ingested.run, tmp_path / f"killed-{call}")
        words = ("group", recipe, f"run_folder={run}")
        assert killed_at("after", call, *words).exit_code == -signal.SIGKILL
        assert_done(mira(*words))
        return leftovers(run) + differences(expected, run)

    assert at_once(wrong, range(1, CALLS_OF_FOUNDING)) == [[]] * (CALLS_OF_FOUNDING - 1)


def killed_founding(corpus: Corpus) -> None:
    """Kills the founding of the texts' groups in the middle."""
    words = ("group", corpus.recipe(corpus.sources()), f"run_folder={corpus.run}")
    assert killed_at("after", 3, *words).exit_code == -signal.SIGKILL
    assert (corpus.run / "groups/smoke/text/intent.json").exists()


def test_founding_killed_before_a_source_is_added_ends_with_its_founders(ingested: Corpus) -> None:
    killed_founding(ingested)
    sources = {**ingested.sources(), "notes": text_source(Path("notes.jsonl"))}
    assert_done(ingested.mira("run", sources))
    assert sources_by_group(ingested.run, "text") == {"text": ["letters", "pages"]}
    joined = json.loads((ingested.run / "joined/smoke/notes/source_group.json").read_text())
    assert joined["group"] == "text"


def test_founding_killed_before_a_source_is_removed_ends_with_the_others(ingested: Corpus) -> None:
    killed_founding(ingested)
    sources = ingested.sources()
    del sources["pages"]
    assert_done(ingested.mira("run", sources))
    assert sources_by_group(ingested.run, "text") == {"text": ["letters"]}
    assert leftovers(ingested.run / "groups/smoke/text") == []


def test_founder_pinned_elsewhere_is_refused_by_name(founded: Corpus) -> None:
    made = stamps(founded.run)
    refused = founded.mira("run", founded.sources(), "sources.letters.group=text-other")
    assert_refused(refused, "group.pins.letters was '(absent)' and is 'text-other'")
    assert stamps(founded.run) == made


def test_later_source_pinned_to_no_founded_group_is_refused_with_the_way_out(
    founded: Corpus,
) -> None:
    made = rubric_stamps(founded.run)
    notes = text_source(Path("notes.jsonl"), group="text-other")
    refused = founded.mira("run", {**founded.sources(), "notes": notes})
    assert_refused(refused, "notes is pinned to group text-other", "rubric=NAME")
    assert rubric_stamps(founded.run) == made


def test_founder_removed_before_it_was_judged_is_refused_with_the_way_out(
    ingested: Corpus,
) -> None:
    assert_done(ingested.mira("group", ingested.sources()))
    sources = ingested.sources()
    del sources["pages"]
    refused = ingested.mira("run", sources)
    assert_refused(refused, "judgments/smoke/pages", "rubric=NAME")


@pytest.mark.parametrize("words", [["status"], ["run", "--dry-run"]])
def test_plan_of_an_empty_run_folder_lists_units_for_pins_and_families(
    tmp_path: Path, words: list[str]
) -> None:
    run = tmp_path / "run"
    shown = smoke(words[0], run, *words[1:])
    assert_done(shown)
    units = [tuple(line.split()[:3]) for line in shown.output.splitlines()]
    for stage, unit in (
        *(("group", family) for family in ("text", "qa", "agent")),
        *(("discover", source) for source in ("modules", "questions", "traces")),
        *(("anchor", group) for group in ("text", "qa", "agent-python")),
        *(("label", source) for source in ("modules", "questions", "traces")),
        *(("sft-data", group) for group in ("text", "qa", "agent-python")),
        *(("distill", group) for group in ("text", "qa", "agent-python")),
        *(("reliability", source) for source in ("modules", "questions", "traces")),
    ):
        assert units.count((stage, unit, "waiting")) == 1, (stage, unit, shown.output)
    assert not run.exists()


def test_stage_before_the_groups_are_found_names_the_command_that_finds_them(
    ingested: Corpus,
) -> None:
    made = stamps(ingested.run)
    for stage in ("discover", "anchor", "label", "reliability", "score"):
        refused = ingested.mira(stage, ingested.sources())
        assert_refused(refused, "no source groups yet", "Run `mira group ")
    assert stamps(ingested.run) == made


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        (f"arms.{ARM}.score=smok", ("record_scores/smok/", "no stage of this recipe makes it")),
        (f"teacher={OTHER_JUDGE}", ("score.engine=rule_judge cannot rate what a model names",)),
        ("label.reliability_fraction=2", ("reliability_fraction=2", "must be in (0, 1)")),
        ("anchor.num_starts=0", ("num_starts=0", "at least 1")),
        ("distill.validation_fraction=1", ("validation_fraction=1", "must be in (0, 1)")),
        ("distill.training.micro_batch_size=3", ("must be a multiple of micro_batch_size=3",)),
    ],
)
def test_later_setting_that_is_wrong_is_refused_before_anything_is_made(
    tmp_path: Path, setting: str, named: tuple[str, ...]
) -> None:
    assert_refused(smoke("run", tmp_path / "run", setting), *named)
    assert not (tmp_path / "run").exists()
