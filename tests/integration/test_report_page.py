"""The report in a real browser: the what-if, the browser of records, attacks, keyboard, contrast.

Screenshots are left in the folder that is printed at the end of the run.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import environment_python, run_probe
from small_run import HELD_OUT, SmallRecord, write_report, write_run
from small_scorers import (
    RHOS,
    with_masks,
    with_scorers,
    write_mask,
    write_reliability,
    write_scorer,
)

from mira_megatron import layout
from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.trimmed_mean import trimmed_mean

pytestmark = pytest.mark.integration

TRIM, MIN_SLOTS = 0.1, 5
NONE_MASKED = (False,) * NUM_SLOTS
BUDGETS = (1, 57, 400, 100_000)
ATTACK = (
    "</script></style></pre><script>window.attacked = 1; alert(1)</script>"
    "<img src=x onerror='window.attacked = 2'><!-- <script>"
    "<svg onload=alert(3)>\u2028alert(4)\u2029"
    '<a href=\'javascript:window.attacked = 5\'>here</a>" onmouseover="window.attacked = 6" ${7*7}'
    " \u202egnp.exe &lt;b&gt; ]]> {{ 7*7 }}"
)


def rated(number: int) -> tuple[float, ...]:
    """Returns fifteen different ratings; what trims or masks them changes the order of records."""
    return tuple(((number * 37 + slot * slot * 11) % 101) / 10 for slot in range(NUM_SLOTS))


def scores(
    numbers: Sequence[int], trim: float = TRIM, is_masked: Sequence[bool] = NONE_MASKED
) -> list[float]:
    units = np.rint(1000 * np.array([rated(number) for number in numbers])).astype(np.uint16)
    columns = [units[:, slot] for slot in range(NUM_SLOTS) if not is_masked[slot]]
    means, has_mean = trimmed_mean(columns, trim_fraction=trim, min_slots=MIN_SLOTS)
    assert has_mean.all()
    return [float(mean) for mean in means]


def sources(
    trim: float = TRIM, is_masked: Sequence[bool] = (False,) * NUM_SLOTS
) -> dict[str, list[SmallRecord]]:
    """Returns two sources of different sizes, scored as a trim and masks have it."""
    numbers = {"qa": range(100, 120), "wiki": range(45)}
    return {
        source: [
            HELD_OUT,
            *(
                SmallRecord(
                    text=f"{source} {number}{' a needle in it' if number == 7 else ''}",
                    score=score,
                    num_tokens=10 + number % 7,
                    ratings=rated(number),
                )
                for number, score in zip(own, scores(own, trim, is_masked), strict=True)
            ),
        ]
        for source, own in numbers.items()
    }


def certified(folder: Path, budget: int, scope: str, **scored: Any) -> dict[str, int]:
    """Returns the tokens that `mira select` keeps of every source."""
    recipe = write_run(folder, sources(**scored), budget_tokens=max(budget, 1), scope=scope)
    (arm,) = recipe.mapping("arms")
    certificate = json.loads(
        (recipe.run_folder / layout.keep(arm) / layout.CERTIFICATE).read_bytes()
    )
    return {source: each["tokens_kept"] for source, each in certificate["sources"].items()}


def choice(
    budget: int,
    scope: str,
    trim: str = "0.1",
    thresholds: Mapping[str, object] | None = None,
) -> dict[str, object]:
    return {
        "budgetTokens": budget,
        "scope": scope,
        "trim": trim,
        "thresholds": thresholds,
    }


SHORT_ATTACK = "</script><img src=x onerror='window.attacked = 7'><!--"  # an anchor's name is short


DECISIONS = ("keep", "keep", "keep", "undecided", "too_few", *["keep"] * 10)  # none is masked
THRESHOLDS = {"maxMae": 10, "minRho": 0.3, "combine": "both"}
CHOICES = [
    *(choice(budget, scope) for scope in ("global", "source") for budget in BUDGETS),
    *(choice(400, "global", trim) for trim in ("0", "0.25", "0.499")),
    choice(400, "group", "0.1", THRESHOLDS),
]
NUM_ESTIMATED = 4


@pytest.fixture(scope="module")
def artefacts() -> Iterator[Path]:
    folder = Path(os.environ.get("MIRA_ARTEFACTS") or tempfile.mkdtemp(prefix="mira-report-page-"))
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    sys.stderr.write(f"\nscreenshots: {folder}\n")


def probe(page: str, folder: Path, choices: Sequence[Mapping[str, object]] = ()) -> Any:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    python = environment_python("browser")
    if chromium is None:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(page)
    arguments = [str(folder / "index.html"), chromium, str(folder), json.dumps(choices)]
    return run_probe(python, ["browser_probe.py"], arguments, folder)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Any:
    """A run of two sources, whose scorers' cells differ."""
    folder = tmp_path_factory.mktemp("run")
    found = sources()
    recipe = with_scorers(write_run(folder, found, budget_tokens=300))
    for source in found:
        write_scorer(recipe.run_folder, f"text-{source}")
        write_reliability(recipe.run_folder, source)
        write_mask(recipe.run_folder, source, DECISIONS, NONE_MASKED)
    return probe(write_report(with_masks(recipe)), artefacts / "plain", CHOICES)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Any:
    """A run whose every text that a stranger writes is an attack."""
    record = SmallRecord(
        text=ATTACK, score=9.0, origin=ATTACK, meta=ATTACK, rationale=ATTACK, model=ATTACK
    )
    failed = replace(record, score=None, reason="failed", status_reason=ATTACK)
    many = [replace(record, text=f"{ATTACK} {number}", score=number / 10) for number in range(60)]
    recipe = write_run(
        tmp_path_factory.mktemp("attacked"),
        {"wiki": [HELD_OUT, record, failed, *many]},
        bad_rows=[{"origin": ATTACK, "reason": "not_json", "detail": ATTACK}],
        anchor_names=[SHORT_ATTACK] * NUM_SLOTS,
    )
    recipe = with_scorers(recipe)
    write_scorer(recipe.run_folder, "text-wiki")
    write_reliability(recipe.run_folder, "wiki", names=[ATTACK] * NUM_SLOTS, model=ATTACK)
    return probe(write_report(recipe), artefacts / "attacked")


def test_what_if_starts_and_ends_with_the_certificate_s_numbers(seen: Any, tmp_path: Path) -> None:
    own = seen["what_if"]["own"]
    kept = certified(tmp_path, 300, "group")
    assert [row[3] for row in own[:2]] == [str(kept["qa"]), str(kept["wiki"])]
    assert own[2][3] == str(sum(kept.values()))
    assert seen["what_if"]["reset"] == own == seen["keyboard"]["reset"]
    assert "the run’s own numbers" in seen["what_if"]["said"]


def test_what_if_with_another_budget_changes_the_table(seen: Any, tmp_path: Path) -> None:
    kept = certified(tmp_path, 57, "group")
    for rows in (seen["what_if"]["changed"], seen["keyboard"]["typed"]):
        assert [row[3] for row in rows[:2]] == [str(kept["qa"]), str(kept["wiki"])]
    assert "Computed from all documents" in seen["what_if"]["said_changed"]
    budget, rows = seen["what_if"]["share_of_nothing"]
    assert (budget, rows[2][3]) == ("0", "0")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, int]]:
    """What `mira select` keeps for each of CHOICES."""
    is_masked = [rho is not None and rho < 0.3 for rho in RHOS]
    assert any(is_masked)
    return [
        certified(
            tmp_path_factory.mktemp("selected"),
            int(str(asked["budgetTokens"])),
            str(asked["scope"]),
            trim=float(str(asked["trim"])),
            **({"is_masked": is_masked} if asked["thresholds"] else {}),
        )
        for asked in CHOICES
    ]


def test_what_if_computes_what_the_selection_computes(
    seen: Any, expected: list[dict[str, int]]
) -> None:
    is_exact = []
    for asked, kept, computed in zip(CHOICES, expected, seen["what_if"]["computed"], strict=True):
        for each in computed:
            assert abs(each["tokens"] - kept[each["name"]]) <= each["error"] + 1e-6, asked
            is_exact.append(each["error"] == 0)
    assert sum(is_exact) > len(is_exact) / 2  # the bounds are not what makes it pass


def test_estimates_from_a_sample_are_within_their_error(
    seen: Any, expected: list[dict[str, int]]
) -> None:
    estimates = [
        (each, kept[each["name"]])
        for asked, kept, computed in zip(CHOICES, expected, seen["from_half"], strict=True)
        if asked["trim"] != "0.1" or asked["thresholds"]
        for each in computed
    ]
    assert len(estimates) == 2 * NUM_ESTIMATED
    assert all(each["error"] > 0 for each, _ in estimates)
    # Two standard errors: one in twenty may be farther off, of these few at most one.
    is_off = [abs(each["tokens"] - kept) > each["error"] for each, kept in estimates]
    assert sum(is_off) <= 1


def test_filters_of_records_find_what_they_say(seen: Any, attacked: Any) -> None:
    records = seen["records"]
    assert (records["all"], records["with_more"], records["open"]) == (40, 67, 67)
    assert records["count"] == "67 of 67 sampled records, the first 40 shown."
    assert records["cleared"] == 40
    assert records["source"] == 21
    assert 0 < records["decision"] < 40
    assert records["words"] == 1
    assert attacked["records"]["status"] == 1
    found = [float(score) for score in attacked["records"]["range"]]
    assert found == [9.0]


def test_page_says_nothing_on_the_console_and_asks_for_nothing(seen: Any, attacked: Any) -> None:
    for page in (seen, attacked):
        assert page["console"] == []
        assert page["requests"] == []


def test_attacks_stay_text(attacked: Any) -> None:
    found = attacked["attacks"]
    assert found["was_run"] is None
    assert (found["scripts"], found["foreign"], found["handlers"]) == (3, 0, 0)
    assert found["links"] == []
    assert found["blocked_by_policy"] is True
    assert attacked["records"]["text"].count("<script>window.attacked = 1; alert(1)</script>") > 60
    assert "\u202e" not in attacked["records"]["text"]


def test_page_is_usable_by_keyboard(seen: Any) -> None:
    found = seen["keyboard"]
    assert found["not_reached"] == []
    assert found["invisible_focus"] == []
    assert found["opened"] == 1
    assert found["stops"] < 1500  # the end was reached: no trap


@pytest.mark.parametrize("view", ["light", "dark", "narrow"])
def test_text_has_contrast_and_the_page_fits(seen: Any, view: str) -> None:
    assert seen["views"][view] == {"faint": [], "too_wide": False}
