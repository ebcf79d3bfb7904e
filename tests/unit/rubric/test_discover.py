from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mira_megatron.config import Recipe
from mira_megatron.manifest import Manifest
from mira_megatron.records import DISCOVERY_ANSWER_SCHEMA, JUDGMENT_SCHEMA, Record
from mira_megatron.rubric import discover
from mira_megatron.rubric.discovery_prompts import discover_prompt_key
from mira_megatron.rubric.rule_judge import MODEL_NAME, dimension_names
from mira_megatron.rubric.views import View
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.questions import Reply
from mira_megatron.stage import Resources, Run, Unit, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]

_RECORD = Record(
    record_id="r",
    content_hash="c",
    source="notes",
    family="text",
    text="x",
    payload=None,
    meta=None,
    control_spans=(),
    num_chars=1,
    origin="notes.jsonl:1",
)


def _unit(recipe: Recipe) -> Unit:
    (unit,) = discover.units(recipe)
    return unit


def _discover(recipe: Recipe) -> tuple[Manifest, Path]:
    """Returns the manifest and the folder of the one source's judgments."""
    unit, run = _unit(recipe), Run(folder=recipe.run_folder)
    return run_unit(unit, run, Resources()), run.folder / unit.folder


def _rows(folder: Path, stem: str) -> pa.Table:
    paths = sorted(folder.glob(f"{stem}-*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths)


@pytest.fixture
def undiscovered(judged_recipe: Make) -> Callable[[int], Recipe]:
    """Returns a recipe whose notes have no anchors yet; so many of them are to be judged."""

    def make(num_records: int) -> Recipe:
        section = {"records_per_source": num_records}
        return judged_recipe(discover=section, scorers={}, stages=["ingest"])

    return make


def test_discover_has_an_answer_for_every_sampled_record_in_record_order(
    undiscovered: Callable[[int], Recipe],
) -> None:
    recipe = undiscovered(15)
    manifest, folder = _discover(recipe)
    answers = _rows(folder, "answers")
    assert answers.schema.equals(DISCOVERY_ANSWER_SCHEMA)
    in_order = _rows(recipe.run_folder / "records/notes", "part")["record_id"].to_pylist()
    sampled = answers["record_id"].to_pylist()
    assert len(sampled) == 15
    assert sampled == [record_id for record_id in in_order if record_id in sampled]
    assert manifest.counts.num_in == 15


def test_discover_judgments_are_those_its_answers_count(
    undiscovered: Callable[[int], Recipe],
) -> None:
    manifest, folder = _discover(undiscovered(20))
    answers, judgments = _rows(folder, "answers"), _rows(folder, "part")
    assert judgments.schema.equals(JUDGMENT_SCHEMA)
    per_record = Counter(judgments["record_id"].to_pylist())
    columns = answers.select(["record_id", "num_judgments"]).to_pydict()
    assert dict(zip(*columns.values(), strict=True)) == per_record
    assert manifest.counts.num_out == len(judgments) > 0
    assert {part.path: part.num_rows for part in manifest.parts} == {
        path.name: pq.read_metadata(path).num_rows for path in folder.glob("*.parquet")
    }


def test_discover_judgment_says_who_judged_what_with_which_prompt(
    undiscovered: Callable[[int], Recipe],
) -> None:
    _, folder = _discover(undiscovered(20))
    judgments = _rows(folder, "part").to_pydict()
    assert set(judgments["source"]) == {"notes"}
    assert set(judgments["model"]) == {MODEL_NAME}
    assert set(judgments["prompt_key"]) == {discover_prompt_key("text")}
    assert set(judgments["part"]) == {None}
    assert set(judgments["dimension"]) <= set(dimension_names("text"))


def test_discover_source_with_given_anchors_is_not_asked_about(judged_recipe: Make) -> None:
    assert discover.units(judged_recipe(discover={"records_per_source": 5})) == []


def test_discover_without_a_section_has_nothing_to_do(judged_recipe: Make) -> None:
    assert discover.units(judged_recipe(scorers={}, stages=["ingest"])) == []


def test_discover_more_records_are_another_configuration(
    undiscovered: Callable[[int], Recipe],
) -> None:
    assert _unit(undiscovered(5)).config != _unit(undiscovered(6)).config


def test_discover_no_record_at_all_is_refused(undiscovered: Callable[[int], Recipe]) -> None:
    with pytest.raises(ValueError, match="records_per_source=0"):
        discover.units(undiscovered(0))


def test_discover_answer_that_was_cut_off_keeps_its_whole_lines(tmp_path: Path) -> None:
    judge = Judge(config=JudgeConfig(engine="rule_judge"), seed=0, tokenizer=None, answers=tmp_path)
    form = discover.DiscoveryForm(source="notes", family="text", judge=judge)
    text = "[D1] Clear Names: 3/10 — It names x.\n[D2] Depth: 4/10 — It says"
    answer = Answer(key="r", text=text, finish_reason="length")
    view = View(text="x", policy="whole", num_record_tokens=None, num_shown_tokens=None)
    reply = Reply(key="r", answer=answer, num_attempts=1, parsed=form.read(answer))
    row, judgments = form.row(_RECORD, view, reply)
    assert [judgment.dimension for judgment in judgments] == ["Clear Names"]
    assert (row["status"], row["reason"]) == ("partial", "cut off at max_tokens")
    assert row["raw"] == text
