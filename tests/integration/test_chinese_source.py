"""Chinese HTML beside English HTML: a group of its own, judged, labelled and scored as well."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from jsonl_corpora import text_source, write_jsonl, write_recipe
from smoke_runs import assert_done, before, mira

NUM_PAGES = 40
ENGLISH_WORDS = (
    "the menu opens when a reader presses its button and closes again after each choice "
    "because small screens leave no room for long lists of links beside the article"
)
CHINESE_WORDS = (
    "点击 按钮 打开 菜单 选择 之后 自动 关闭 因为 屏幕 较小 页面 布局 响应式 设计 样式 "
    "颜色 字体 图片 链接 标题 段落 用户 可以 调整 间距 使用 弹性 盒子 网格"
)
ENGLISH = {"words": ENGLISH_WORDS.split(), "stop": ". ", "space": " "}
CHINESE = {"words": CHINESE_WORDS.split(), "stop": "。", "space": ""}


def page(number: int, language: dict[str, Any]) -> str:
    """Returns an HTML page of made-up sentences, another one for every number."""
    draw = random.Random(number)

    def sentence() -> str:
        words = draw.choices(language["words"], k=draw.randint(6, 18))
        return str(language["space"].join(words) + language["stop"])

    def paragraph() -> str:
        return f"    <p>{''.join(sentence() for _ in range(draw.randint(1, 5)))}</p>"

    title = language["space"].join(draw.choices(language["words"], k=3))
    items = "\n".join(f"      <li>{sentence()}</li>" for _ in range(draw.randint(0, 4)))
    body = "\n".join(paragraph() for _ in range(draw.randint(2, 9)))
    return (
        f"<!DOCTYPE html>\n<html>\n  <head><title>{title}</title></head>\n  <body>\n"
        f"    <h1>{title}</h1>\n{body}\n    <ul>\n{items}\n    </ul>\n  </body>\n</html>\n"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over one Chinese and two English sources, none of them pinned, up to the scores."""
    folder = tmp_path_factory.mktemp("chinese")
    sources = {
        name: text_source(
            write_jsonl(
                folder / f"{name}.jsonl",
                [{"text": page(start + number, language)} for number in range(NUM_PAGES)],
            )
        )
        for name, start, language in (
            ("design_zh", 0, CHINESE),
            ("design_en", 1000, ENGLISH),
            ("manual_en", 2000, ENGLISH),
        )
    }
    recipe = write_recipe(folder / "run.yaml", sources, list(sources))
    for stage in before("tokenize"):
        assert_done(mira(stage, recipe))
    return folder / "run"


def rows(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def groups(run: Path) -> dict[str, list[str]]:
    (path,) = run.glob("groups/*/text/source_groups.json")
    content: dict[str, Any] = json.loads(path.read_text())["groups"]
    return {name: group["sources"] for name, group in content.items()}


def test_chinese_source_is_grouped_apart_from_the_english_ones(run: Path) -> None:
    assert sorted(groups(run).values()) == [["design_en", "manual_en"], ["design_zh"]]


def test_chinese_group_has_fifteen_anchors_found_in_its_own_records(run: Path) -> None:
    (group,) = [name for name, sources in groups(run).items() if sources == ["design_zh"]]
    (path,) = run.glob(f"anchors/*/{group}/anchors.jsonl")
    anchors = [json.loads(line) for line in path.read_text().splitlines()]
    assert [anchor["anchor_id"] for anchor in anchors] == [f"A{slot}" for slot in range(1, 16)]
    assert {anchor["medoid"]["source"] for anchor in anchors} == {"design_zh"}


def test_chinese_records_are_all_judged_labelled_and_scored(run: Path) -> None:
    for kind in ("judgments", "teacher_ratings", "ratings", "record_scores"):
        (folder,) = run.glob(f"{kind}/*/design_zh")
        found = rows(folder)
        assert len({row["record_id"] for row in found}) == NUM_PAGES, kind
        if kind.endswith("ratings"):
            assert {row["status"] for row in found} == {"ok"}
        if kind == "record_scores":
            assert all(0 <= row["score"] <= 10 for row in found)


def test_chinese_scorer_is_compared_on_the_labels_held_back(run: Path) -> None:
    (labels,) = run.glob("teacher_ratings/*/design_zh")
    (reliability,) = run.glob("reliability/*/design_zh")
    held_back = {row["record_id"] for row in rows(labels) if row["split"] == "reliability"}
    assert {row["record_id"] for row in rows(reliability)} == held_back
    cells = pq.read_table(reliability / "cells.parquet").to_pylist()
    assert [cell["anchor_id"] for cell in cells] == [f"A{slot}" for slot in range(1, 16)]
    assert {cell["n"] for cell in cells} == {len(held_back)}
    assert {cell["mae"] for cell in cells} == {0.0}  # the judge is the teacher here
