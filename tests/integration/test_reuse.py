"""`reuse`: what another run finished with the same fingerprint is taken over, never recomputed."""

from __future__ import annotations

import json
from pathlib import Path

from smoke_runs import ARM, assert_done, copy_stages, differences, leftovers, smoke

from mira_megatron.pipeline import STAGES


def recomputed(run_folder: Path, earlier: Path) -> set[str]:
    """Returns the folders of the units that a run did not take over."""
    return {
        manifest.parent.relative_to(run_folder).as_posix()
        for manifest in run_folder.rglob("manifest.json")
        if not str(json.loads(manifest.read_bytes())["reused_from"]).startswith(f"{earlier}/")
    }


def test_run_that_reuses_an_equal_one_recomputes_nothing(
    finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert_done(smoke("run", run, f"reuse=[{finished_run}]"))
    assert recomputed(run, finished_run) == set()
    assert differences(finished_run, run) == []
    assert leftovers(run) == []


def test_run_that_reuses_another_budgets_recomputes_only_that_arm(
    finished_run: Path, tmp_path: Path
) -> None:
    earlier = copy_stages(finished_run, tmp_path / "earlier", STAGES)
    run = tmp_path / "run"
    budget = f"arms.{ARM}.budget_fraction=0.7"
    assert_done(smoke("run", run, f"reuse=[{earlier}]", budget))
    stages = ("keep", "sensitivity", "blends", "checkpoints", "instruct")
    arm = {f"{stage}/{ARM}" for stage in stages}
    assert recomputed(run, earlier) == arm | {"report"}
    assert differences(finished_run, earlier) == []


def test_run_that_reuses_another_training_recomputes_only_the_scorers(
    finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    rate = "distill.training.learning_rate=0.002"
    assert_done(smoke("run", run, f"reuse=[{finished_run}]", rate))
    scorers = {f"scorers/smoke/{group}" for group in ("agent-python", "qa-questions")}
    assert recomputed(run, finished_run) == {*scorers, "scorers/smoke/text-modules", "report"}


def test_run_that_reuses_a_damaged_one_is_refused(finished_run: Path, tmp_path: Path) -> None:
    earlier = copy_stages(finished_run, tmp_path / "earlier", ["ingest"])
    part = earlier / "records/modules/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    refused = smoke("ingest", tmp_path / "run", f"reuse=[{earlier}]")
    assert refused.exit_code == 2
    assert f"{part}: this part has" in refused.output
