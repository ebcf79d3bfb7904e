"""Arms that go without each other, repeat their best, and sources that are not ranked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adopted_datasets import write_adopting_recipe
from test_selection import CANDIDATES, chosen, documents, selected, write_recipe

from mira_megatron.config import load_recipe
from mira_megatron.retention.arms import arm_configs
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.retention.selection import units

# Its name sorts before that of the arm it waits for.
PHASES = {
    "annealing": {"score": "given", "scope": "global", "budget_fraction": 0.1},
    "a_stable": {
        "score": "given",
        "scope": "global",
        "budget_fraction": 0.2,
        "without": ["annealing"],
    },
}


def test_phases_share_no_text(tmp_path: Path) -> None:
    phases = selected(write_recipe(tmp_path, PHASES))
    texts = {
        name: {row["text"] for row in phase.all_rows if row["is_kept"]}
        for name, phase in phases.items()
    }
    assert texts["annealing"]
    assert texts["a_stable"]
    assert not texts["annealing"] & texts["a_stable"]
    # Copies in other sources count too, so more documents are left out than annealing keeps.
    dropped = phases["a_stable"].manifest.counts.dropped["in_another_arm"]
    assert dropped > phases["annealing"].certificate["sources"]["books"]["num_kept"]


def test_phases_take_their_fractions_of_the_same_whole(tmp_path: Path) -> None:
    phases = selected(write_recipe(tmp_path, PHASES))
    budgets = {name: phase.certificate["budget_tokens"] for name, phase in phases.items()}
    assert abs(budgets["a_stable"] - 2 * budgets["annealing"]) <= 1


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ({"annealing": ["a_stable"], "a_stable": ["annealing"]}, "without the other's"),
        ({"annealing": ["a_stabel"]}, r"annealing.without: no arm 'a_stabel'. Did you mean"),
    ],
)
def test_phases_that_cannot_be_ordered_are_refused(
    tmp_path: Path, without: dict[str, list[str]], message: str
) -> None:
    arms = {name: {**arm, "without": without.get(name, [])} for name, arm in PHASES.items()}
    with pytest.raises(ValueError, match=message):
        units(load_recipe(write_recipe(tmp_path, arms)))


@pytest.mark.parametrize("setting", ["pinned", "excluded", "without"])
def test_order_and_repeats_of_names_do_not_change_the_fingerprint(
    tmp_path: Path, setting: str
) -> None:
    names = ["a_stable", "annealing"] if setting == "without" else ["code", "wiki"]
    arm = {"score": "given", "scope": "global", "budget_fraction": 0.3}
    configs, upstreams = [], []
    for given in (names, [*reversed(names), names[0]]):
        found = units(
            load_recipe(write_recipe(tmp_path, PHASES | {"mine": {**arm, setting: given}}))
        )
        (mine,) = (unit for unit in found if unit.name == "mine")
        configs.append(mine.config)
        upstreams.append(mine.upstream)
    assert configs[0] == configs[1]
    assert configs[0][setting] == names
    assert upstreams[0] == upstreams[1]


def test_repeats_are_written_beside_the_masks(tmp_path: Path) -> None:
    arm = {"score": "given", "scope": "global", "budget_fraction": 0.3}
    arm |= {"repeat_fraction": 0.5, "repeat_times": 3}
    found = selected(write_recipe(tmp_path, {"thrice": arm}))["thrice"].certificate
    masks = {
        source: read_keep_mask(tmp_path / f"run/keep/thrice/{source}.keep.npy")
        for source in found["sources"]
    }
    seen = [mask.repeats_D for mask in masks.values() if mask.repeats_D is not None]
    assert sum((times == 3).sum() for times in seen) == found["scopes"]["all"]["num_repeated"] > 0
    assert found["tokens_kept"] == sum(mask.info.tokens_kept for mask in masks.values())
    assert found["tokens_kept"] <= found["budget_tokens"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"repeat_fraction": 0.1},
        {"repeat_times": 2},
        {"repeat_fraction": 0.0, "repeat_times": 2},
        {"repeat_fraction": 0.1, "repeat_times": 1},
        {"repeat_fraction": 0.1, "repeat_times": 256},
    ],
)
def test_repeats_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    arm = {"score": "given", "scope": "global", "budget_fraction": 0.3, **wrong}
    with pytest.raises(ValueError, match=r"arms.mine: repeat_"):
        arm_configs(load_recipe(write_recipe(tmp_path, {"mine": arm})))


def test_pinned_source_is_kept_whole_and_leaves_the_rest_of_the_budget() -> None:
    pinned = documents("notes", (None, 4), (None, 3), (None, 9), untrainable=[2])
    choice = chosen([*CANDIDATES, pinned], "global", 27, pinned=["notes"])
    assert choice.sources["notes"].times_D.tolist() == [1, 1, 0]
    assert choice.cuts["all"].budget_tokens == 20
    assert choice.cuts["all"].tokens_kept == 20


def test_pinned_source_beyond_the_budget_is_refused() -> None:
    pinned = documents("notes", (None, 40))
    message = r"recipe.yaml: arms.a: .* notes hold 40 tokens, more than the whole budget of 39"
    with pytest.raises(ValueError, match=message):
        chosen([*CANDIDATES, pinned], "global", 39, pinned=["notes"])


def test_source_left_out_takes_no_share_of_the_budget() -> None:
    left_out = documents("notes", (None, 1_000))
    choice = chosen([*CANDIDATES, left_out], "group", 20)
    assert not np.any(choice.sources["notes"].times_D)
    assert sum(cut.budget_tokens for cut in choice.cuts.values()) == 20


def test_score_that_no_adopted_source_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    adopt = {"wiki": {"prefixes": ["wiki"], "scores": {"team": "s.parquet"}, "unscored": "pin"}}
    path = write_adopting_recipe(tmp_path, adopt)
    with pytest.raises(ValueError, match=r"arms.half.score: no score 'teem'. Did you mean 'team'"):
        units(load_recipe(path, ["arms.half.score=teem"]))


def test_repeats_that_leave_documents_out_are_not_said_to_keep_all(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    arm = {"score": "given", "scope": "global", "budget_tokens": 5_000}
    arm |= {"repeat_fraction": 0.5, "repeat_times": 20}
    found = selected(write_recipe(tmp_path, {"often": arm}))["often"].certificate
    assert found["scopes"]["all"]["first_out"] is not None
    sources = found["sources"].values()
    assert sum(source["tokens_distinct"] for source in sources) < found["tokens_kept"]
    assert "all are kept" not in caplog.text
