"""`mira explain` on a finished run: every record, and one that each reason drops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset
from smoke_runs import (
    ARM,
    SMALL,
    SMOKE,
    Ended,
    assert_done,
    assert_refused,
    before,
    copy_stages,
    mira_explain,
    smoke,
)

# A score table that asks for all 15 slots, so that some records have none, and two arms over it;
# and one without the anchors on which nothing could be measured.
STRICT = (
    "aggregate.scoring=strict",
    "aggregate.min_slots=15",
    "arms.strict={score: strict, scope: global}",
    "arms.rest={score: strict, scope: global, without: [strict]}",
)
MASKED = (
    "aggregate.scoring=masked",
    "reliability.min_records=3",
    "reliability.too_few=mask",
    "arms.masked={score: masked, scope: group}",
)


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run with three arms more."""
    folder = tmp_path_factory.mktemp("explain") / "run"
    copy_stages(finished_run, folder, before("report"))
    for overrides in (STRICT, MASKED):
        for stage in ("aggregate", "select"):
            assert_done(smoke(stage, folder, *overrides))
    return folder


def explained(run: Path, name: str, *words: str) -> Ended:
    return mira_explain(SMOKE, name, f"run_folder={run}", *SMALL, *words)


def found(run: Path, name: str, *overrides: str) -> dict[str, Any]:
    said = explained(run, name, *overrides, "--json")
    assert_done(said)
    content: dict[str, Any] = json.loads(said.output[said.output.index("{") :])
    return content


def ids(run: Path, source: str) -> list[str]:
    (path,) = (run / "tokens" / source).glob("*.records.parquet")
    return list(pq.read_table(path)["record_id"].to_pylist())


def decisions(run: Path, arm: str, source: str) -> list[str]:
    names = json.loads((run / "keep" / arm / "selection.json").read_text())["decisions"]
    return [names[code] for code in np.load(run / "keep" / arm / f"{source}.decisions.npy")]


def arm_of(content: dict[str, Any], arm: str) -> dict[str, Any]:
    (entry,) = [each for each in content["arms"] if each["arm"] == arm]
    return dict(entry)


def some(
    run: Path, arm: str, decision: str, sources: Sequence[str] = ("modules", "questions", "traces")
) -> str:
    """Returns the id of a record of these sources that an arm decided on so."""
    for source in sources:
        for name, decided in zip(ids(run, source), decisions(run, arm, source), strict=True):
            if decided == decision:
                return name
    raise AssertionError(f"{arm} decides {decision} on no record")


def tokens_at(place: dict[str, Any]) -> list[int]:
    """Returns the tokens of a record, read from its .bin at the byte that is told."""
    with Path(place["bin"]).open("rb") as file:
        file.seek(place["byte_offset"])
        content = file.read(place["num_bytes"])
    size = place["num_bytes"] // place["num_tokens"]
    ids = np.frombuffer(content, {2: np.uint16, 4: np.int32}[size])
    return [int(token) for token in ids]


def tokens_of(prefix: str, sequence: int) -> list[int]:
    """Returns a sequence as Megatron reads it."""
    dataset = IndexedDataset(prefix)  # a name of its own: its end would unmap what is read
    return [int(token) for token in dataset[sequence]]


def test_kept_record_lies_where_it_is_said_to_lie(run: Path) -> None:
    content = found(run, some(run, ARM, "kept"))
    place, arm = content["tokens"], arm_of(content, ARM)
    assert tokens_at(place) == tokens_of(place["bin"].removesuffix(".bin"), place["document"])
    (sequence,) = arm["blend"]["sequences"]
    assert tokens_at(place) == tokens_of(arm["blend"]["prefix"], sequence)
    assert arm["blend"]["split"] == "train"
    assert arm["decided"]["is_kept"]
    assert arm["decided"]["score_minus_cutoff"] >= 0
    assert content["is_score_reproduced"]


def test_dropped_record_is_below_the_cutoff_and_in_no_blend(run: Path) -> None:
    arm = arm_of(found(run, some(run, ARM, "not_selected")), ARM)
    assert arm["state"] == "done"
    assert arm["blend"] is None
    assert arm["decided"]["score_minus_cutoff"] <= 0
    assert arm["decided"]["distance"]["rank"] > 1


def test_held_out_record_is_in_the_validation_split(run: Path) -> None:
    content = found(run, some(run, ARM, "held_out"))
    blend = arm_of(content, ARM)["blend"]
    assert blend["split"] == "valid"
    (sequence,) = blend["sequences"]
    assert tokens_at(content["tokens"]) == tokens_of(blend["prefix"], sequence)


def test_record_with_too_few_slots_has_no_score(run: Path) -> None:
    content = found(run, some(run, "strict", "no_score"), *STRICT)
    assert {each["table"]: each["reason"] for each in content["scores"]}["strict"] == (
        "too_few_slots"
    )
    assert content["is_score_reproduced"]
    assert content["rating"]["arithmetic"]["num_usable"] < 15
    assert arm_of(content, "strict")["decided"]["why"] == "too_few_slots"


def test_record_in_another_arm_names_that_arm(run: Path) -> None:
    name = some(run, "rest", "in_another_arm")
    decided = arm_of(found(run, name, *STRICT), "rest")["decided"]
    assert [(copy["record_id"], copy["kept_by"]) for copy in decided["copies"]] == [
        (name, ["strict"])
    ]


def test_masked_slots_are_those_of_the_mask(run: Path) -> None:
    # Some anchors of questions have one score throughout, so that nothing can be measured.
    content = found(run, some(run, "masked", "kept", ["questions"]), *MASKED)
    folder = run / "reliability_masks" / "masked" / content["source"]
    cells = pq.read_table(folder / "cells.parquet").to_pylist()
    masked = {cell["anchor_id"] for cell in cells if cell["is_masked"]}
    assert masked
    slots = content["rating"]["slots"]
    told = {slot["anchor_id"] for slot in slots if slot["reliability"]["is_masked"]}
    assert told == masked
    parts = {slot["part"] for slot in slots if slot["anchor_id"] in masked}
    assert parts <= {"masked", "missing"}
    assert content["is_score_reproduced"]


def test_beginning_of_an_id_is_enough_and_json_is_stable(run: Path) -> None:
    name = some(run, ARM, "kept")
    said = explained(run, name[:12], "--json")
    assert said == explained(run, name, "--json")


def test_unknown_id_is_refused(run: Path) -> None:
    assert_refused(explained(run, "f" * 32), "modules, questions, traces", "dropped.jsonl")


def test_terminal_tells_source_score_and_decision(run: Path) -> None:
    said = explained(run, some(run, ARM, "kept"))
    assert_done(said)
    for word in ("Record ", "Source ", "Score in smoke", f"Arm {ARM}: kept", "In the blend (train"):
        assert word in said.output
