"""Sources of one group, ranked together, of which other anchors count."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson
import pytest
from masked_runs import (
    ARM,
    COUNTS,
    MASKED,
    OPEN_MASKED,
    Rated,
    RatedSource,
    selected,
    write_recipe,
    write_sources,
)

from mira_megatron import layout
from mira_megatron.config import Recipe

DOCUMENTS = tuple(Rated(num_tokens=10, ratings=(score, score, score)) for score in (9, 5, 1))
HALF = {"budget_fraction": 0.5}
OTHERS = [f"A{slot}" for slot in range(4, 16)]


def source(*cells: str, group: str = "text-prose") -> RatedSource:
    return RatedSource(group=group, cells=cells, documents=DOCUMENTS)


def run_of(folder: Path, arm: dict[str, Any], **sources: RatedSource) -> Recipe:
    recipe = write_recipe(folder, sources, {**HALF, **arm})
    write_sources(recipe, sources)
    return recipe


def certificate(recipe: Recipe) -> dict[str, Any]:
    path = recipe.run_folder / layout.keep(ARM) / layout.CERTIFICATE
    content: dict[str, Any] = orjson.loads(path.read_bytes())
    return content


@pytest.mark.parametrize("scope", ["group", "global"])
def test_select_warns_of_unlike_masks_of_sources_that_compete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scope: str
) -> None:
    recipe = run_of(
        tmp_path,
        {"scope": scope},
        books=source(COUNTS, COUNTS, COUNTS),
        wiki=source(COUNTS, COUNTS, OPEN_MASKED),
        code=source(COUNTS, COUNTS, MASKED, group="text-code"),
    )
    with caplog.at_level(logging.WARNING):
        manifest = selected(recipe)
    assert certificate(recipe)["unlike_masks"] == {
        "text-prose": {"books": OTHERS, "wiki": ["A3", *OTHERS]}
    }
    assert manifest.counts.totals["groups with unlike masks"] == 1
    (message,) = [text for text in caplog.messages if "unlike" in text]
    assert "select a: sources of text-prose are ranked together under unlike" in message
    assert "wiki A3, A4" in message
    assert "scope: source does not compare them" in message


@pytest.mark.parametrize(
    ("scope", "cells"),
    [("source", (COUNTS, COUNTS, COUNTS)), ("group", (COUNTS, COUNTS, OPEN_MASKED))],
)
def test_select_does_not_warn_where_sources_are_on_one_scale_or_do_not_compete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scope: str, cells: tuple[str, ...]
) -> None:
    recipe = run_of(
        tmp_path, {"scope": scope}, books=source(*cells), wiki=source(COUNTS, COUNTS, MASKED)
    )
    with caplog.at_level(logging.WARNING):
        manifest = selected(recipe)
    assert certificate(recipe)["unlike_masks"] == {}
    assert manifest.counts.totals["groups with unlike masks"] == 0
    assert "unlike" not in caplog.text


def test_select_compares_the_masks_of_ranked_sources_alone(tmp_path: Path) -> None:
    recipe = run_of(
        tmp_path,
        {"pinned": ["wiki"]},
        books=source(COUNTS, COUNTS, COUNTS),
        wiki=source(COUNTS, COUNTS, MASKED),
    )
    selected(recipe)
    assert certificate(recipe)["unlike_masks"] == {}


def test_select_without_masks_says_nothing_of_them(tmp_path: Path) -> None:
    sources = {"books": source(COUNTS), "wiki": source(MASKED)}
    recipe = write_recipe(tmp_path, sources, HALF, reliability=None)
    write_sources(recipe, sources)
    manifest = selected(recipe)
    assert "unlike_masks" not in certificate(recipe)
    assert "groups with unlike masks" not in manifest.counts.totals
