"""The comparison's page in a real browser: attacks, requests, keyboard, contrast."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment_python, run_probe
from evaluations import bits, compared, write_entry, write_nine

from mira_megatron.eval.comparison.page import comparison_page
from mira_megatron.eval.verdicts import Status

pytestmark = pytest.mark.integration

PUBLISHED = Path(__file__).parents[2] / "eval/published/mira_paper.yaml"
ATTACK = (
    "</script></style></table><script>window.attacked = 1; alert(1)</script>"
    "<img src=x onerror='window.attacked = 2'><svg onload=alert(3)>"
    '<a href=\'javascript:window.attacked = 4\'>here</a>" onmouseover="window.attacked = 5"'
    " &lt;b&gt; {{ 7*7 }}"
)


@pytest.fixture(scope="module")
def artefacts() -> Iterator[Path]:
    folder = Path(os.environ.get("MIRA_ARTEFACTS") or tempfile.mkdtemp(prefix="mira-comparison-"))
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    sys.stderr.write(f"\nscreenshots: {folder}\n")


def probe(page: str, folder: Path) -> Any:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    python = environment_python("browser")
    if chromium is None:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(page)
    arguments = [str(folder / "index.html"), chromium, str(folder)]
    return run_probe(python, ["comparison_probe.py"], arguments, folder)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Any:
    """Three arms: one with losses, one that lacks a benchmark, one of two seeds."""
    folder = tmp_path_factory.mktemp("arms")
    lost = [Status.INFRA, Status.TRUNCATED, Status.NO_CODE]
    arms = [
        write_nine(folder / "random", lost=lost),
        write_nine(folder / "half", share=0.52, seed=3, without=["livecodebench"]),
    ]
    seeds = [("group", write_nine(folder / f"s{n}", share=0.58, seed=n)) for n in (1, 2)]
    comparison = compared(*arms, labelled=seeds, against=PUBLISHED)
    return probe(comparison_page(comparison), artefacts / "plain")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Any:
    """Two arms whose labels, tasks, benchmarks and protocols are attacks, and such a table."""
    folder = tmp_path_factory.mktemp("attacked")
    labelled = []
    for name, right in (("a", "1100110"), ("b", "1010011")):
        tasks = bits(right, prefix=ATTACK)
        place = write_entry(
            folder / name, "x", {ATTACK: tasks}, clusters={task: task for task in tasks},
            protocol=f"{ATTACK} {name}",
        )  # fmt: skip
        labelled.append((f"{ATTACK} {name}", place))
    table = folder / "table.yaml"
    said = json.dumps(ATTACK)
    table.write_text(
        f"name: {said}\nsource: {said}\nnotes: [{said}]\nrows: {{{said}: {{sql: 1.0}}}}\n"
    )
    comparison = compared(labelled=labelled, against=table, allows_unlike=True)
    return probe(comparison_page(comparison), artefacts / "attacked")


def test_page_says_nothing_on_the_console_and_asks_for_nothing(seen: Any, attacked: Any) -> None:
    for page in (seen, attacked):
        assert page["console"] == []
        assert page["requests"] == []


def test_attacks_stay_text(attacked: Any) -> None:
    found = attacked["attacks"]
    assert found["was_run"] is None
    assert (found["scripts"], found["foreign"], found["handlers"]) == (0, 0, 0)
    assert found["links"] == []
    assert found["blocked_by_policy"] is True
    assert attacked["text"].count("<script>window.attacked = 1; alert(1)</script>") > 30


def test_page_shows_every_part(seen: Any) -> None:
    text = " ".join(seen["text"].split())
    for said in (
        "group minus random",
        "half, LiveCodeBench: not graded",
        "infra",
        "63.23",
        "62.55",
        "unpaired, published point estimate",
    ):
        assert said in text, said


def test_page_is_usable_by_keyboard_and_by_ear(seen: Any) -> None:
    found = seen["keyboard"]
    assert found["invisible_focus"] == 0
    assert found["opened"] == 1
    assert 10 < found["stops"] < 1500  # the end was reached: no trap
    assert seen["nameless"] == 0


@pytest.mark.parametrize("view", ["light", "dark", "narrow"])
def test_text_has_contrast_and_the_page_fits(seen: Any, view: str) -> None:
    assert seen["views"][view] == {"faint": [], "too_wide": False}


@pytest.mark.parametrize("view", ["light", "narrow"])
def test_long_words_of_strangers_do_not_break_the_page(attacked: Any, view: str) -> None:
    assert attacked["views"][view]["too_wide"] is False
