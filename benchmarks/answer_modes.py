"""How far the demo's scorers rank in cheaper answer modes as they do in full, all four of them.

Every scorer is asked about records of its own group, by the units that `mira score` measures a mode
with: greedily, expected beside full in this process, as the demo asks, and scores_only beside full
by a real vLLM server, for guided decoding; and with temperature 0.7 twice, in full and in
scores_only. The peer is full agreement. There is no bar: what digits are worth that a scorer never
learned is a finding, not a promise (docs/answer-modes.md).

Takes the scorers of runs/demo where `mira run recipes/demo.yaml` has left them, and else makes them
as that does, which takes two idle cores eight minutes more, once: they stay in runs/answer-modes.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar).
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.distill.scorer_card import EXPORT, read_card
from mira_megatron.grouping.source_groups import SourceGroup, source_groups
from mira_megatron.pipeline import run_stages
from mira_megatron.scoring.asked_sample import AGREEMENT, read_summary
from mira_megatron.scoring.group_scorer import group_scorer
from mira_megatron.scoring.mode_agreement import mode_units
from mira_megatron.scoring.retest import retest_units
from mira_megatron.stage import Resources, Run, Unit, run_unit

# The server is that of the integration tests.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "integration"))
from vllm_server import VllmServer, running_vllm

REPOSITORY = Path(__file__).parents[1]
RECIPE = REPOSITORY / "recipes" / "demo.yaml"
FOLDER = REPOSITORY / "runs" / "answer-modes"
STAGES = ("ingest", "group", "discover", "anchor", "label", "sft-data", "distill")
MEASURED = ("mode_agreement", "retest", layout.ANSWERS)  # folders that every run makes anew
NUM_RECORDS = 200  # of each group
TEMPERATURE = 0.7


def main() -> int:
    """Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # of stderr
    for name in MEASURED:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    recipe = _recipe()
    run_stages(recipe, STAGES, Resources(workers=2))
    for group in source_groups(recipe).values():
        _compare_modes(_recipe(**_gate("expected")), group)
        scorer = recipe.run_folder / layout.scorer(recipe.rubric, group.name)
        card = read_card(scorer)
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, card.served_model_name)  # the server calls a model by its folder
            model.symlink_to(scorer / EXPORT)
            log_path = Path(folder, "vllm.log")
            with running_vllm(model, max_model_len=card.max_model_len, log_path=log_path) as server:
                _measure_served(server, group)
    return 0


def _recipe(**score: object) -> Recipe:
    """Returns the demo's recipe in the benchmark's folder, with these settings of its scorers."""
    settings = [f"score.{name}={json.dumps(value)}" for name, value in score.items()]
    reuse = [f"reuse=[{FOLDER.parent / 'demo'}]"] if (FOLDER.parent / "demo").is_dir() else []
    return load_recipe(RECIPE, [f"run_folder={FOLDER}", *reuse, *settings])


def _gate(mode: str) -> dict[str, object]:
    """Returns the settings of a mode that is measured, and never refused."""
    least = {"min_mode_agreement": -1, "mode_agreement_records": NUM_RECORDS}
    return {"answer_mode": mode, "temperature": 0, **least}


def _measure_served(server: VllmServer, group: SourceGroup) -> None:
    served = {"engine": "endpoint", "endpoints": [server.endpoint], "top_p": 1.0}
    _compare_modes(_recipe(**served, **_gate("scores_only")), group)
    sampled = {"temperature": TEMPERATURE, "retest_records": NUM_RECORDS}
    for mode in ("full", "scores_only"):
        recipe = _recipe(**served, **sampled, answer_mode=mode)
        (unit,) = retest_units(group_scorer(recipe, group), group.members, ratings=())
        beside = f"themselves with another seed, temperature {TEMPERATURE}"
        _tell(recipe, unit, f"retest_{mode}_{group.name}", beside)


def _compare_modes(recipe: Recipe, group: SourceGroup) -> None:
    (unit,) = mode_units(group_scorer(recipe, group), group.members)
    mode = group_scorer(recipe, group).judge.config.answer_mode
    _tell(recipe, unit, f"rank_agreement_{mode}_{group.name}", "greedy answers in full")


def _tell(recipe: Recipe, unit: Unit, name: str, beside: str) -> None:
    """Measures and prints one figure."""
    run_unit(unit, Run(folder=recipe.run_folder), Resources())
    folder = recipe.run_folder / unit.folder
    summary = read_summary(folder)
    assert summary is not None, folder
    table = pq.read_table(folder / AGREEMENT)
    num_constant = sum(reason is not None for reason in table["reason"].to_pylist())
    ours = summary.agreement
    figure = {
        "name": name,
        "ours": None if ours is None else round(ours, 2),
        "peer": 1.0,
        "unit": f"Spearman, median of the anchors that can be ranked, {summary.num_records} "
        f"records (at least {pc.min(table['n'])} compared), {num_constant} of {table.num_rows} "
        f"anchors with one score throughout; peer: {beside}",
        "ratio": None if ours is None else round(ours, 2),
        "bar": None,
    }
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    sys.exit(main())
