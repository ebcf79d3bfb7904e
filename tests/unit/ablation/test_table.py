"""The table of a run whose held-out losses were written by hand."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from ablation_runs import SOURCES, compared, make
from small_run import ARM, finish, write_run

from mira_megatron import layout
from mira_megatron.ablation import ablation
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.pipeline import stage_units
from mira_megatron.shards import write_parquet
from mira_megatron.training import held_out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = compared(tmp_path_factory.mktemp("compared"))
    make(recipe)
    return recipe


def content_of(recipe: Recipe) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((recipe.run_folder / "ablation/table.json").read_bytes())
    return content


def row_of(recipe: Recipe, arm: str) -> dict[str, Any]:
    (row,) = [row for row in content_of(recipe)["arms"] if row["arm"] == arm]
    found: dict[str, Any] = row
    return found


def test_table_holds_every_arm_with_its_mean_over_seeds(made: Recipe) -> None:
    content = content_of(made)
    assert [row["arm"] for row in content["arms"]] == [ARM, "other", "random", "base"]
    assert content["reference"] == "random"
    assert content["num_documents"] == {"text-books": 3, "text-code": 2}
    other = row_of(made, "other")["bits"]["text-code"]
    assert other["value"] == pytest.approx((2.0 + 2.3 + 1.6) / 3)
    assert other["by_seed"] == pytest.approx([2.0, 2.3, 1.6])
    base = row_of(made, "base")["bits"]["mean over groups"]
    assert base["by_seed"] == pytest.approx([3.0] * 3)


def test_arm_that_is_better_and_one_that_is_not_are_told_apart(made: Recipe) -> None:
    better, unclear = (row_of(made, arm)["gaps"]["mean over groups"] for arm in (ARM, "other"))
    assert better["value"] == pytest.approx(-1.0)
    assert better["verdict"] == "better"
    assert unclear["value"] == pytest.approx(-0.1 / 3)
    assert unclear["verdict"] == "no significant difference"
    assert row_of(made, "base")["gaps"]["mean over groups"]["verdict"] == "worse"
    assert row_of(made, "random")["gaps"] == {}
    findings = content_of(made)["findings"]
    assert findings[0].startswith(f"{ARM} is better than random by 1.0000 bits per byte (p ")
    assert findings[-1] == "No significant difference from random: other."


def test_tokens_steps_lengths_and_overlap_are_those_of_the_arms(made: Recipe) -> None:
    row = row_of(made, "random")
    assert (row["tokens_kept"], row["num_steps"]) == (80, 40)
    assert row["mean_length_of_candidates"] == 30
    assert row["mean_length"] == 20
    assert row_of(made, "base")["tokens_kept"] is None
    (pair,) = [
        pair
        for pair in content_of(made)["overlaps"]
        if (pair["arm"], pair["other"]) == (ARM, "random")
    ]
    assert (pair["tokens_in_both"], pair["tokens_in_either"]) == (20, 80)
    assert pair["jaccard"] == 0.25


def test_every_form_says_the_same(made: Recipe) -> None:
    folder = made.run_folder / "ablation"
    markdown = (folder / "table.md").read_text()
    assert f"| {ARM.replace('_', chr(92) + '_')} | 20 | 40 | 1.0000 [" in markdown
    assert "| no significant difference |" in markdown
    assert "| base | n/a | n/a | 3.0000 [" in markdown
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert len(rows) == 4 * 3
    (row,) = [row for row in rows if (row["arm"], row["measure"]) == ("other", "mean over groups")]
    gap = row_of(made, "other")["gaps"]["mean over groups"]
    assert float(row["difference"]) == gap["value"]
    assert float(row["p_holm"]) == gap["p_holm"]
    latex = (folder / "table.tex").read_text()
    assert rf"{{{ARM.replace('_', chr(92) + '_')}}} & 20 & 40 & 1.0000$^{{\ast}}$" in latex
    page = (folder / "index.html").read_text()
    assert "No significant difference from random: other." in page
    assert page.count("no significant difference") == 3


def test_page_fetches_and_runs_nothing(made: Recipe) -> None:
    found: list[tuple[str, dict[str, str | None]]] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Tags().feed((made.run_folder / "ablation/index.html").read_text())
    assert not [tag for tag, _ in found if tag in ("script", "img", "iframe", "object")]
    addresses = [attributes.get("href") for tag, attributes in found if tag in ("a", "link")]
    assert all(address in (None, "data:,") for address in addresses)


def test_recipe_whose_name_is_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    recipe = compared(tmp_path)
    path = recipe.path.with_name("<b>&_x_.yaml")
    recipe.path.rename(path)
    make(load_recipe(path))
    folder = recipe.run_folder / "ablation"
    assert "<b>" not in (folder / "index.html").read_text()
    assert "&lt;b&gt;&amp;_x_" in (folder / "index.html").read_text()
    assert r"&lt;b&gt;&amp;\_x\_" in (folder / "table.md").read_text()


def test_table_made_twice_is_the_same_bytes(made: Recipe, tmp_path: Path) -> None:
    again = compared(tmp_path)
    first = make(made)
    assert make(again).output_digest == first.output_digest


def test_other_reference_makes_the_table_anew(tmp_path: Path) -> None:
    recipe = compared(tmp_path)
    first = make(recipe)
    content = orjson.loads(recipe.path.read_bytes())
    content["ablation"]["reference"] = ARM
    recipe.path.write_bytes(orjson.dumps(content))
    second = make(load_recipe(recipe.path))
    assert second.fingerprint != first.fingerprint
    assert row_of(recipe, "random")["gaps"]["mean over groups"]["verdict"] == "worse"


def test_one_seed_gives_no_test_and_says_so(tmp_path: Path) -> None:
    recipe = compared(tmp_path, seeds=[7])
    make(recipe)
    gap = row_of(recipe, ARM)["gaps"]["mean over groups"]
    assert (gap["p"], gap["verdict"]) == (None, "not tested")
    assert "one seed" in content_of(recipe)["findings"][0]


def test_models_that_were_measured_on_other_documents_are_refused(tmp_path: Path) -> None:
    recipe = compared(tmp_path)
    folder = recipe.run_folder / layout.held_out("random.seed8")
    rows = [{"source": "books", "record_id": "x", "num_tokens": 1, "num_bytes": 1, "nats": 1.0}]
    write_parquet(folder / held_out.DOCUMENTS, pa.Table.from_pylist(rows, held_out.SCHEMA))
    finish(folder, "held-out", "random.seed8")
    with pytest.raises(ValueError, match=r"random\.seed8: not measured on the documents of held"):
        make(recipe)


def test_reference_that_is_no_arm_is_refused_with_the_nearest(tmp_path: Path) -> None:
    recipe = compared(tmp_path, reference="randm")
    with pytest.raises(ValueError, match=r"reference: no arm 'randm'. Did you mean 'random'"):
        ablation.units(recipe)


def test_recipe_without_the_section_has_no_table(tmp_path: Path) -> None:
    assert stage_units(write_run(tmp_path, SOURCES), "ablation") == []
