"""What is right against what is kept: GSM8K solutions and tau-bench conversations, half kept.

GSM8K: four models' answers to each of 1,319 problems, correct or wrong. tau-bench: 200 airline
conversations, reward 1 or 0. Each corpus is a source group, half of its tokens are kept, and the
share of the right ones among the kept is held against that among the dropped: once with the rule
judge as scorer, once with a scorer distilled from it under the settings of recipes/demo.yaml (what
differs is in `_recipe`), with that recipe's reliability mask and without. No scorer ever sees the
labels. Intervals are 95 % percentile bootstraps over problems and tasks, the selection as it is,
because answers to one problem, and conversations about one task, resemble each other. No bar: the
figures say how far a judge of form carries. They are discussed in docs/ground_truth.md;
rule_judge_truth.py has the judge's AUC on the same labels.

    python benchmarks/ground_truth.py [FOLDER]   # FOLDER keeps the runs; a killed one goes on

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar). Minutes: it trains scorers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from rule_judge_truth import CORPUS, GSM8K, MODELS, RESAMPLES, TAU_BENCH

from mira_megatron import layout
from mira_megatron.config import load_recipe, load_yaml
from mira_megatron.pipeline import STAGES, run_stages
from mira_megatron.retention.export import export_selection
from mira_megatron.stage import Resources

DEMO = Path(__file__).parents[1] / "recipes" / "demo.yaml"
GROUPS = {"qa-gsm8k": "gsm8k_correct", "agent-airline": "tau_bench_reward"}
ARM = "half"
BARRED = ("held_out", "duplicate_of_held_out")  # no candidates, whatever their score
STAGES_TO_SELECT = list(STAGES)[: list(STAGES).index("select") + 1]
SCORERS = ("rule_judge", "distilled", "distilled_unmasked")


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The candidates of one group, N records; what is held out for validation is no candidate."""

    cluster_N: npt.NDArray[np.int64]  # problem or task
    is_good_N: npt.NDArray[np.bool_]
    is_kept_N: npt.NDArray[np.bool_]
    tokens_N: npt.NDArray[np.int64]


def main() -> int:
    """Returns the exit code."""
    if not TAU_BENCH.is_file() or not GSM8K.is_file():
        sys.stderr.write(f"skipped: {CORPUS} does not hold tau-bench and GSM8K solutions here\n")
        return 0
    if len(sys.argv) > 1:
        _measure(Path(sys.argv[1]).resolve())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder))
    return 0


def _measure(folder: Path) -> None:
    for scorer in SCORERS:
        recipe = load_recipe(_recipe(folder, scorer))
        run_stages(recipe, STAGES_TO_SELECT, Resources(workers=os.cpu_count() or 1))
        exported = folder / f"{scorer}.parquet"
        exported.unlink(missing_ok=True)
        export_selection(recipe, exported)
        for group, name in GROUPS.items():
            _print(f"{name}_{scorer}", _judged(folder / scorer, exported, group))


def _recipe(folder: Path, scorer: str) -> Path:
    """Writes the demo recipe over these sources, ending with the selection, and returns it."""
    content = load_yaml(DEMO)
    for section in ("group", "blend", "midtrain", "instruct_sft"):
        del content[section]
    sources = _sources()
    content |= {
        "run_folder": str(folder / scorer),
        "reuse": [str(folder / other) for other in SCORERS if other != scorer],
        "sources": sources,
        "score": {"engine": "rule_judge"} if scorer == "rule_judge" else content["score"],
        "arms": {ARM: {"score": content["aggregate"]["scoring"], "scope": "group"}},
    }
    if scorer == "distilled_unmasked":
        del content["reliability"]
    content["tokenize"]["train_on"] = list(sources)
    content["label"]["records_per_source"] = 250  # 1,000 GSM8K solutions, as many as there are else
    path = folder / f"{scorer}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def _sources() -> dict[str, dict[str, Any]]:
    solutions = {
        f"gsm8k_{model}": {
            "format": "jsonl",
            "family": "qa",
            "group": "qa-gsm8k",
            "paths": [str(GSM8K)],
            "fields": {"question": "question", "answer": f"{model}.solution"},
            "meta_fields": [f"{model}.is_correct"],
        }
        for model in MODELS
    }
    conversations = {
        "format": "json",
        "family": "agent",
        "group": "agent-airline",
        "paths": [str(TAU_BENCH)],
        "fields": {"messages": "traj"},
        "meta_fields": ["reward", "task_id"],
    }
    return {**solutions, "tau_bench": conversations}


def _judged(run_folder: Path, exported: Path, group: str) -> Judged:
    """Returns the candidates of a group with what the selection made of them."""
    certificate = json.loads(
        (run_folder / layout.keep(ARM) / layout.CERTIFICATE).read_text(encoding="utf-8")
    )
    of_group = {
        source
        for source, decided in certificate["sources"].items()
        if decided["source_group"] == group
    }
    decisions = {
        row["record_id"]: row
        for row in pq.read_table(exported).to_pylist()
        if row["source"] in of_group and (row["reason"] or "").partition(":")[0] not in BARRED
    }
    rows = [row for source in sorted(of_group) for row in _records(run_folder, source)]
    rows = [row for row in rows if row["record_id"] in decisions]
    return Judged(
        cluster_N=np.unique([row["cluster"] for row in rows], return_inverse=True)[1],
        is_good_N=np.array([row["is_good"] for row in rows]),
        is_kept_N=np.array([decisions[row["record_id"]]["decision"] == "kept" for row in rows]),
        tokens_N=np.array([row["num_tokens"] for row in rows]),
    )


def _records(run_folder: Path, source: str) -> list[dict[str, Any]]:
    """Returns id, length, truth and problem or task of a source's records."""
    columns = ["record_id", "payload", "meta"]
    parts = sorted((run_folder / layout.records(source)).glob("part-*.parquet"))
    (documents,) = (run_folder / layout.tokens(source)).glob("*.records.parquet")
    lengths = pq.read_table(documents, columns=["record_id", "num_tokens"]).to_pylist()
    tokens = {row["record_id"]: row["num_tokens"] for row in lengths}
    found = []
    for row in pq.read_table(parts, columns=columns).to_pylist():
        meta = json.loads(row["meta"])
        if "reward" in meta:
            is_good, cluster = meta["reward"] == 1, str(meta["task_id"])
        else:
            (is_good,) = meta.values()
            cluster = json.loads(row["payload"])["question"]
        found.append(
            {
                "record_id": row["record_id"],
                "num_tokens": tokens[row["record_id"]],
                "is_good": is_good,
                "cluster": cluster,
            }
        )
    return found


def _print(name: str, judged: Judged) -> None:
    """Prints the shares of good ones among kept and dropped, by records and by tokens."""
    if judged.is_kept_N.all() or not judged.is_kept_N.any():
        # Not a number and not 0: there are no two halves to compare.
        how = f"{judged.is_kept_N.sum()} of {len(judged.is_kept_N)} candidates are kept"
        unit = f"{how}: the mask leaves too few slots for a score"
        nothing = dict.fromkeys(("ours", "peer", "ratio", "bar"))
        print(json.dumps({"name": name, "unit": unit, **nothing}), flush=True)
        return
    for unit, weight_N in (("records", np.ones_like(judged.tokens_N)), ("tokens", judged.tokens_N)):
        kept, dropped = _shares(judged, weight_N)
        low, high = _interval(judged, weight_N)
        is_good_N, is_kept_N = judged.is_good_N, judged.is_kept_N
        explained = (
            f"share of {unit} that are right among the kept; peer: among the dropped; difference "
            f"{kept - dropped:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}; "
            f"{(is_good_N & is_kept_N).sum()} of {is_kept_N.sum()} kept and "
            f"{(is_good_N & ~is_kept_N).sum()} of {(~is_kept_N).sum()} dropped records are right; "
            f"kept: {_part(weight_N, is_kept_N & is_good_N, is_good_N):.3f} of the right {unit}, "
            f"{_part(weight_N, is_kept_N, np.ones_like(is_kept_N)):.3f} of all"
        )
        figure = {"name": f"{name}_by_{unit}", "ours": round(kept, 3), "peer": round(dropped, 3)}
        ratio = round(kept / dropped, 2) if dropped else None
        print(json.dumps({**figure, "unit": explained, "ratio": ratio, "bar": None}), flush=True)


def _shares(judged: Judged, weight_N: npt.NDArray[np.integer]) -> tuple[float, float]:
    is_good_N, is_kept_N = judged.is_good_N, judged.is_kept_N
    return (
        _part(weight_N, is_good_N & is_kept_N, is_kept_N),
        _part(weight_N, is_good_N & ~is_kept_N, ~is_kept_N),
    )


def _part(
    weight_N: npt.NDArray[np.integer],
    part_N: npt.NDArray[np.bool_],
    whole_N: npt.NDArray[np.bool_],
) -> float:
    return float(np.dot(weight_N, part_N) / np.dot(weight_N, whole_N))


def _interval(judged: Judged, weight_N: npt.NDArray[np.integer]) -> tuple[float, float]:
    """Returns the 95 % interval of the difference of the shares, problems or tasks resampled."""
    generator = np.random.default_rng(0)
    num_clusters = int(judged.cluster_N.max()) + 1
    differences = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, num_clusters, num_clusters)
        times_N = np.bincount(drawn, minlength=num_clusters)[judged.cluster_N]
        kept, dropped = _shares(judged, weight_N * times_N)
        differences.append(kept - dropped)
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
