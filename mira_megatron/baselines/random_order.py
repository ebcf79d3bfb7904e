"""Random: records in the order of a hash of seed, baseline and id.

The score is uniform in (0, 1). It depends on a record alone, so a corpus that grows is not
reshuffled. With `scope: source` and proportional shares an arm keeps every source's share of the
tokens, as the random baseline of the MIRA paper is read to have done
(notes of a third party; the paper's text does not say).
"""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron import layout
from mira_megatron.baselines.score_parts import Part, Scores, uniform_of, write_scores
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomConfig:
    """A random order has nothing to set but the recipe's seed and its own name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomSettings:
    """What one source's unit needs."""

    source: str
    purpose: str


def random_units(baseline: str, sources: list[str], seed: int) -> list[Unit]:
    """Returns one unit per source."""
    purpose = f"{seed}:{baseline}"
    return [
        Unit(
            stage="baseline",
            name=f"{baseline}.{source}",
            folder=layout.record_scores(baseline, source),
            version=VERSION,
            config={"method": "random", "seed": seed},
            upstream=(layout.records(source),),
            work="mira_megatron.baselines.random_order:score_randomly",
            settings=RandomSettings(source=source, purpose=purpose),
        )
        for source in sources
    ]


def score_randomly(workspace: Workspace, settings: RandomSettings) -> WorkResult:
    """Writes the record scores of one source."""
    return write_scores(workspace, layout.records(settings.source), _score, settings.purpose)


def _score(part: Part, purpose: str) -> Scores:
    record_ids = part.rows(["record_id"])["record_id"]
    scores = uniform_of(record_ids.to_pylist(), purpose)
    return Scores(record_ids=record_ids, scores=scores.tolist(), reasons=[None] * len(scores))
