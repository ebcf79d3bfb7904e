"""The table of a run with a section `eval`: scores, languages, and what arms keep of benchmarks."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from ablation_runs import SEEDS, compared, evaluated, make, write_hits, write_scores
from evaluations import bits, write_entry
from small_run import ARM, HELD_OUT, SmallRecord, finish

from mira_megatron import layout
from mira_megatron.ablation.contaminated import arm_hits
from mira_megatron.ablation.make_table import surviving_markdown
from mira_megatron.ablation.words import contamination_notes, documents_text, tokens_text
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.eval.contamination.scan import HIT_SCHEMA
from mira_megatron.pipeline import stage_units
from mira_megatron.report.judged_scopes import Scope
from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome

# Kept by ARM of both sources: documents 1 (10 tokens); by the others 1 and 2 (30 tokens).
HITS = [
    (1, "mbpp", "solution", 0.9),
    (1, "mbpp", "tests", 0.3),
    (2, "spider", "query", 1.0),
    (2, "mbpp", "prompt", 0.25),
    (3, "mbpp", "prompt", 1.0),
    (2, "swe", "test_names", 1.0),
]


ROW = {"benchmark": "mbpp", "split": "test", "task_id": "t", "surface": "solution", "score": 1.0}
ROW |= {"start": 0, "end": 1}
SCOPE = Scope(
    name="all",
    budget_tokens=0,
    num_candidates=0,
    candidate_tokens=0,
    num_kept=0,
    tokens_kept=0,
    cutoff=None,
    first_out=None,
    sources=(),
)


def judged_arm(sources: dict[str, list[str]]) -> JudgedArm:
    """Returns an arm that keeps all documents, of 10 tokens each."""
    return JudgedArm(
        arm="a",
        score_table="s",
        scope_kind="group",
        budget_tokens=0,
        tie_rule="",
        without=(),
        scopes=(),
        sources=tuple(
            JudgedSource(
                source=source,
                source_group=None,
                scope=SCOPE,
                record_ids=pa.chunked_array([ids]),
                tokens_D=np.full(len(ids), 10),
                scores_D=np.zeros(len(ids), dtype=np.float32),
                is_scored_D=np.ones(len(ids), dtype=bool),
                no_score_reasons=pa.chunked_array([[None] * len(ids)], pa.string()),
                outcomes_D=np.full(len(ids), Outcome.KEPT, dtype=np.uint8),
                tokens_seen=10 * len(ids),
            )
            for source, ids in sources.items()
        ),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = evaluated(compared(tmp_path_factory.mktemp("evaluated")))
    write_hits(recipe.run_folder, "code", HITS)
    make(recipe)
    return recipe


def content_of(recipe: Recipe) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((recipe.run_folder / "ablation/table.json").read_bytes())
    return content


def of_arm(recipe: Recipe, section: str, arm: str) -> dict[str, Any]:
    (found,) = [each for each in content_of(recipe)[section] if each["arm"] == arm]
    row: dict[str, Any] = found
    return row


def text_of(recipe: Recipe, name: str) -> str:
    return (recipe.run_folder / "ablation" / name).read_text()


def test_scores_are_means_over_seeds_and_tested_as_losses_are(made: Recipe) -> None:
    row = of_arm(made, "arms", ARM)
    assert row["scores"]["mbpp"]["by_seed"] == pytest.approx([80, 90, 80])
    assert row["score_gaps"]["mbpp"]["value"] == pytest.approx(40)
    assert row["score_gaps"]["measured"]["verdict"] == "better"
    assert of_arm(made, "arms", "base")["scores"]["mbpp"]["by_seed"] == pytest.approx([10] * 3)
    assert of_arm(made, "arms", "random")["score_gaps"] == {}
    assert content_of(made)["benchmarks"]["num_tasks"] == {"mbpp": 200}


def test_findings_are_said_of_both_measures(made: Recipe) -> None:
    findings = content_of(made)["findings"]
    assert findings[0].startswith(f"{ARM} is better than random by 1.0000 bits per byte (p ")
    of_scores = [each for each in findings if "on benchmarks" in each]
    assert of_scores[0].startswith(
        f"{ARM} is better than random on benchmarks (Mean of what was measured) by 40.00 points (p "
    )
    assert "base is worse than random on benchmarks" in " ".join(of_scores)
    assert of_scores[-1].startswith("No significant difference from random on benchmarks")
    assert of_scores[-1].endswith(": other.")


def test_every_form_has_the_scores(made: Recipe) -> None:
    markdown = text_of(made, "table.md")
    assert "| MBPP | 200 | 83.33 [" in markdown
    assert "## Benchmarks, minus random" in markdown
    assert "* Macro average: 8 of 9 missing: MBPP+, BigCodeBench Full" in markdown
    rows = list(csv.DictReader(io.StringIO(text_of(made, "table.csv"))))
    (row,) = [row for row in rows if (row["arm"], row["measure"]) == (ARM, "mbpp")]
    assert float(row["pass_at_1"]) == pytest.approx(250 / 3)
    assert row["bits_per_byte"] == ""
    assert float(row["difference"]) == pytest.approx(40)
    assert r"& Mean of what was measured & MBPP \\" in text_of(made, "table.tex")
    assert r"83.33$^{\ast}$ {\scriptsize [" in text_of(made, "table.tex")
    page = text_of(made, "index.html")
    assert 'id="benchmarks"' in page
    assert "83.33 [" in page


def test_kept_documents_with_benchmark_items_are_counted_by_arm(made: Recipe) -> None:
    hits = of_arm(made, "contamination", ARM)
    assert hits["kept"] == {
        "num_documents": 1,
        "tokens": 10,
        "num_over": 1,
        "tokens_over": 10,
    }
    assert hits["candidates"]["num_documents"] == 3
    assert (hits["tokens_scanned"], hits["not_scanned"]) == (20, [])
    others = of_arm(made, "contamination", "random")
    assert others["kept"] == {
        "num_documents": 2,
        "tokens": 40,
        "num_over": 2,
        "tokens_over": 40,
    }
    # Of MBPP the second has only 0.25; that it names tests of SWE-bench says nothing.
    assert others["benchmarks"]["mbpp"]["num_documents"] == 2
    assert others["benchmarks"]["mbpp"]["num_over"] == 1
    assert others["benchmarks"]["spider"]["num_over"] == 1
    assert "swe" not in others["benchmarks"]
    line = "| 3 (3 over) | 2 (2 over) | 40 (50.0%) | mbpp 2 (1 over), spider 1 (1 over) |  |"
    assert line in text_of(made, "table.md")


def test_source_without_records_is_named_and_not_counted_as_clean() -> None:
    hits = pa.Table.from_pylist([{**ROW, "record_id": "a"}], HIT_SCHEMA)
    arm = judged_arm({"told": ["a", "b"], "adopted": ["a", "c"]})
    found = arm_hits(arm, {"told": hits})
    assert found.kept is not None
    assert (found.kept.num_documents, found.kept.tokens) == (1, 10)
    assert (found.tokens_scanned, found.tokens_not_scanned) == (20, 20)
    assert contamination_notes(found) == "not of adopted: tokens without records (20 kept)"
    none = arm_hits(arm, {})
    assert (none.kept, none.candidates) == (None, None)
    assert none.reason == "no source has records: adopted tokens are not looked through"
    assert documents_text(none.kept) == tokens_text(none.kept, 0) == "n/a"


def test_language_and_source_of_what_is_kept_beside_its_candidates(tmp_path: Path) -> None:
    meta = ['{"language": "Rust"}', '{"lang": "C"}', None]
    sources = {
        name: [
            HELD_OUT,
            *(
                SmallRecord(text=f"{name} {n}", score=9.0 - n, num_tokens=tokens, meta=meta[n])
                for n, tokens in enumerate((10, 30, 50))
            ),
        ]
        for name in ("books", "code")
    }
    recipe = compared(tmp_path, sources=sources)
    make(recipe)
    drift = of_arm(recipe, "drifts", "random")
    shares = {name: (before, after) for name, before, after in drift["languages"]}
    assert shares["Rust"] == pytest.approx((20 / 180, 20 / 80), abs=1e-3)
    assert shares["C"] == pytest.approx((60 / 180, 60 / 80), abs=1e-3)
    assert shares["none named"][1] == 0
    assert drift["sources"] == [["books", 0.5, 0.5], ["code", 0.5, 0.5]]
    markdown = text_of(recipe, "table.md")
    assert "| random | C | 33.3% | 75.0% | +41.7 |" in markdown
    assert "by language" in text_of(recipe, "index.html")


def test_records_that_name_no_language_are_said_to(made: Recipe) -> None:
    assert of_arm(made, "drifts", ARM)["languages"] == []
    for name in ("table.md", "index.html"):
        assert "None named: no sampled record" in text_of(made, name)
    assert f"| {ARM.replace('_', chr(92) + '_')} | books | 50.0% | 50.0% | 0.0 |" in text_of(
        made, "table.md"
    )


def test_recipe_without_the_section_has_no_scores_and_no_scan(tmp_path: Path) -> None:
    recipe = compared(tmp_path)
    make(recipe)
    content = content_of(recipe)
    assert (content["benchmarks"], content["contamination"]) == (None, None)
    assert "Benchmark" not in text_of(recipe, "table.md")
    assert 'id="benchmarks"' not in text_of(recipe, "index.html")
    (unit,) = stage_units(recipe, "ablation")
    assert not [each for each in unit.upstream if each.startswith(("eval", "benchmark_hits"))]


def test_table_reads_every_evaluation_and_a_tuned_base_with_each_seed(tmp_path: Path) -> None:
    recipe = evaluated(compared(tmp_path))
    (unit,) = stage_units(recipe, "ablation")
    read = {each for each in unit.upstream if each.startswith("eval/")}
    arms = {f"eval/{arm}{tail}" for arm in (ARM, "other", "random") for tail in tails(SEEDS)}
    assert read == {*arms, "eval/base"}
    content = orjson.loads(recipe.path.read_bytes())
    content["instruct_sft"] = {}
    recipe.path.write_bytes(orjson.dumps(content))
    (unit,) = stage_units(load_recipe(recipe.path), "ablation")
    read = {each for each in unit.upstream if each.startswith("eval/")}
    assert read == {*arms, *(f"eval/base{tail}" for tail in tails(SEEDS))}


def tails(seeds: list[int]) -> list[str]:
    return ["", *(f".seed{seed}" for seed in seeds[1:])]


def test_changed_verdicts_make_the_table_anew(tmp_path: Path) -> None:
    recipe = evaluated(compared(tmp_path))
    first = make(recipe)
    write_scores(recipe.run_folder, "random", 9)
    second = make(recipe)
    assert second.fingerprint != first.fingerprint
    assert of_arm(recipe, "arms", "random")["scores"]["mbpp"]["by_seed"][0] == 90


def test_models_evaluated_unlike_are_refused(tmp_path: Path) -> None:
    recipe = evaluated(compared(tmp_path))
    folder = recipe.run_folder / layout.evaluation("other")
    write_entry(folder, "mbpp", {"mbpp": bits("10" * 100)}, grader="g/2")
    finish(folder, "eval", "other")
    with pytest.raises(ValueError, match=r"were not evaluated alike.*\n  grader is .*other: g/2"):
        make(recipe)


def test_lost_evaluation_leaves_the_arm_its_losses_and_the_others_their_scores(
    tmp_path: Path,
) -> None:
    recipe = evaluated(compared(tmp_path))
    lost = {layout.evaluation("other.seed8"), layout.contamination("code")}
    for folder in lost:
        shutil.rmtree(recipe.run_folder / folder)
    markdown = surviving_markdown(recipe, lost)
    assert markdown is not None
    assert "| MBPP | 200 | 83.33 [" in markdown
    assert "Not evaluated: other." in markdown
    assert "| other | 80 | 40 | 1.9667 [" in markdown
    assert "Benchmark items" not in markdown


def test_lost_evaluation_of_the_reference_leaves_scores_without_tests(tmp_path: Path) -> None:
    recipe = evaluated(compared(tmp_path))
    markdown = surviving_markdown(recipe, {layout.evaluation("random")})
    assert markdown is not None
    assert "## Benchmarks\n" in markdown
    assert "## Benchmarks, minus" not in markdown
    assert "## Minus random" in markdown


def test_table_made_twice_is_the_same_bytes(made: Recipe) -> None:
    folder = made.run_folder / "ablation"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}
    digest = json.loads((folder / "manifest.json").read_bytes())["output_digest"]
    shutil.rmtree(folder)
    assert make(made).output_digest == digest
    assert {name: (folder / name).read_bytes() for name in before} == before
