"""How often the intervals of a comparison hold what they should, and how often its tests cry wolf.

Draws suites of the table's sizes again and again from populations whose macro average is known:
every cluster (problem, database, repository) has a chance of its own, Beta-distributed about the
population's. Two checkpoints that are equally good differ by chance on every cluster. The peer is
what one does without clusters: a bootstrap over tasks one by one, and its p value.

Figures: the share of macro intervals that hold the true average, which should be 0.95, and the
share of pairs for which the macro test finds a difference at 5 %, here as the share that it rightly
does not, which should be 0.95, too. The ratio is to 0.95.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mira_megatron.eval.comparison.scores import averaged
from mira_megatron.eval.comparison.table import AVERAGES, BENCHMARKS, MACRO
from mira_megatron.eval.statistics.paired import flipped_p
from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Resampling,
    percentile_interval,
    resampled_scores,
)
from mira_megatron.eval.statistics.sign_flips import flipped_differences

Scores = dict[str, ClusteredScores]

SUITES = 400
WANTED = 0.95
BAR = 0.97  # of WANTED: 0.92, with 400 suites nearly three standard errors below it
CONCENTRATION = 6.0  # of the clusters' chances; lower: clusters differ more
LUCK = 0.05  # by which two equally good checkpoints differ on a cluster, standard deviation
# Stratum -> clusters, tasks of each, chance, and how many of the clusters each benchmark has.
STRATA: Mapping[str, tuple[int, int, float, Mapping[str, int]]] = {
    "mbpp": (378, 1, 0.7, {"mbpp": 378, "mbpp_plus": 378}),
    "bigcodebench": (1140, 1, 0.4, {"bigcodebench_full": 1140, "bigcodebench_hard": 148}),
    "livecodebench": (175, 1, 0.25, {"livecodebench": 175}),
    "multipl_e": (161, 1, 0.7, dict.fromkeys(AVERAGES["multipl_e"], 161)),
    "spider": (20, 52, 0.8, {"spider": 20}),
    "bird": (11, 139, 0.6, {"bird": 11}),
    "swe": (42, 7, 0.35, {"swe_multilingual": 42}),
}


def drawn_suites(generator: np.random.Generator) -> tuple[Scores, Scores]:
    """Returns the scores of two checkpoints, equally good on average, on one drawn suite."""
    first: Scores = {}
    second: Scores = {}
    for stratum, (num_clusters, num_tasks, chance, benchmarks) in STRATA.items():
        shape = (CONCENTRATION * chance, CONCENTRATION * (1 - chance))
        chances_C = generator.beta(*shape, num_clusters)
        luck_C = generator.normal(0.0, LUCK, num_clusters) * (1 - chances_C) * chances_C * 4
        for name, size in benchmarks.items():
            for found, sign in ((first, 1), (second, -1)):
                own_C = np.clip(chances_C[:size] + sign * luck_C[:size], 0, 1)
                right_CT = generator.random((size, num_tasks)) < own_C[:, np.newaxis]
                found[name] = ClusteredScores(
                    stratum=stratum,
                    scores=right_CT.astype(float).ravel().tolist(),
                    clusters=[str(c) for c in range(size) for _ in range(num_tasks)],
                )
    return first, second


def one_by_one(scores: Scores) -> Scores:
    """Returns the same scores as if every task were a draw of its own."""
    return {
        name: ClusteredScores(
            stratum=name, scores=each.scores, clusters=[str(n) for n in range(len(each.scores))]
        )
        for name, each in scores.items()
    }


def true_macro() -> float:
    """Returns the macro average of the populations."""
    chances = {name: np.array([each[2]]) for each in STRATA.values() for name in each[3]}
    return float(averaged(MACRO, chances)[0])


def holds(scores: Scores, resampling: Resampling) -> bool:
    """Returns whether the macro average's interval holds the true one."""
    drawn = resampled_scores({("a", name): each for name, each in scores.items()}, resampling)
    interval = percentile_interval(averaged(MACRO, {name: drawn["a", name] for name in scores}))
    assert interval is not None
    return interval.low <= true_macro() <= interval.high


def macro_difference(first: Scores, second: Scores) -> float:
    """Returns how much better the second is."""
    means: dict[str, npt.NDArray[np.float64]] = {
        name: np.array([np.mean(second[name].scores) - np.mean(first[name].scores)])
        for name in first
    }
    return float(averaged(MACRO, means)[0])


def finds_nothing(first: Scores, second: Scores, resampling: Resampling) -> bool:
    """Returns whether random signs of clusters find no difference at 5 %."""
    flipped = averaged(MACRO, flipped_differences(first, second, resampling))
    return flipped_p(macro_difference(first, second), flipped) > 1 - WANTED


def main() -> int:
    """Returns the exit code."""
    assert set(BENCHMARKS) - {"multipl_e"} < {name for each in STRATA.values() for name in each[3]}
    generator = np.random.default_rng(0)
    held, held_by_peer, silent, silent_peer = 0, 0, 0, 0
    for number in range(SUITES):
        first, second = drawn_suites(generator)
        resampling = Resampling(num_resamples=500, seed=number)
        held += holds(first, resampling)
        held_by_peer += holds(one_by_one(first), resampling)
        silent += finds_nothing(first, second, resampling)
        silent_peer += finds_nothing(one_by_one(first), one_by_one(second), resampling)
    figures = {
        "macro intervals that hold the true average": (held, held_by_peer),
        "equal checkpoints that are not told apart": (silent, silent_peer),
    }
    is_good = True
    for name, (ours, peer) in figures.items():
        ratio = ours / SUITES / WANTED
        is_good &= ratio >= BAR
        line = {"name": name, "ours": ours / SUITES, "peer": peer / SUITES, "unit": "share"}
        sys.stdout.write(json.dumps({**line, "ratio": ratio, "bar": BAR}) + "\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
