"""The rule judge's overall held against ground truth: AUC, where chance is 0.5.

tau-bench: 200 airline conversations, reward 1 against 0. GSM8K: four models' answers to each of
1,319 problems, correct against wrong. Intervals are 95 % percentile bootstraps over tasks and
problems, because conversations about one task, and answers to one problem, resemble each other. No
bar: the judge sees form and consequences, not truth, and the figures say how far that carries. How
often these labels were looked at while the rules were made is in docs/rule-judge.md.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from mira_megatron.rubric.rule_judge import dimension_names, rate

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "corpus"
TAU_BENCH = CORPUS / "taubench" / "gpt-4o-airline.json"
GSM8K = CORPUS / "gsm8k_model_solutions" / "solutions.jsonl"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
RESAMPLES = 1000
CHANCE = 0.5

Labelled = tuple[int, bool, float]  # task or problem, is good, overall


def main() -> int:
    """Returns the exit code."""
    if not TAU_BENCH.is_file() or not GSM8K.is_file():
        sys.stderr.write(f"skipped: {CORPUS} does not hold tau-bench and GSM8K solutions here\n")
        return 0
    _print("rule_judge_auc_tau_bench_reward", list(_conversations()))
    _print("rule_judge_auc_gsm8k_correct", list(_answers()))
    return 0


def _conversations() -> Iterator[Labelled]:
    for entry in json.loads(TAU_BENCH.read_text(encoding="utf-8")):
        yield entry["task_id"], entry["reward"] == 1, _overall("agent", entry["traj"])


def _answers() -> Iterator[Labelled]:
    for number, line in enumerate(GSM8K.read_text(encoding="utf-8").splitlines()):
        problem = json.loads(line)
        for model in MODELS:
            pair = {"question": problem["question"], "answer": problem[model]["solution"]}
            yield number, problem[model]["is_correct"], _overall("qa", pair)


def _overall(family: str, payload: object) -> float:
    """Returns the judge's overall; nothing measurable is the lowest."""
    verdict = rate(family, json.dumps(payload), dimension_names(family)[:1])
    return verdict.overall if verdict.overall is not None else -1.0


def _print(name: str, labelled: list[Labelled]) -> None:
    cluster_N, good_N, overall_N = (np.array(column) for column in zip(*labelled, strict=True))
    auc = roc_auc_score(good_N, overall_N)
    low, high = _interval(cluster_N, good_N, overall_N)
    unit = (
        f"AUC, 95 % interval {low:.3f}-{high:.3f}; {good_N.sum()} of {len(good_N)} are good; "
        "peer: chance"
    )
    figure = {"name": name, "ours": round(auc, 3), "peer": CHANCE, "unit": unit}
    print(json.dumps({**figure, "ratio": round(auc / CHANCE, 2), "bar": None}))


def _interval(
    cluster_N: np.ndarray, good_N: np.ndarray, overall_N: np.ndarray
) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    _, cluster_N = np.unique(cluster_N, return_inverse=True)
    num_clusters = cluster_N.max() + 1
    aucs = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, num_clusters, num_clusters)
        weight_N = np.bincount(drawn, minlength=num_clusters)[cluster_N]
        aucs.append(roc_auc_score(good_N, overall_N, sample_weight=weight_N))
    low, high = np.percentile(aucs, (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
