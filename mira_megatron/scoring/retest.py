"""Test and retest: how far a judge that samples its answers ranks a group's records as before.

Reads   records/<source>/part-*.parquet of the group's sources, its anchors, and its scorer
Writes  retest/<rubric>/<group>/<mode>/: the files of asked_sample.py for the askings `first`, as
            the corpus is asked, and `again`, with another seed

A unit within the stage `score`, one per group, after all sources: what has been answered about them
is in the store by then, so that only the second answers cost anything. It is a
figure for the reader and decides nothing, so a few more failures than the corpus may have do not
end the run. A judge that does not sample is a function of its input, and is not asked twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mira_megatron import layout
from mira_megatron.scoring.asked_sample import SampleSettings, compare_askings
from mira_megatron.scoring.group_scorer import GroupScorer
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 1
# Far from the seeds of further attempts, which count on from the first one's.
_OTHER_SEED = 1 << 20
# Of 200 records a handful more than of the corpus may fail by chance.
_MOST_FAILED = 0.1


def retest_units(
    scorer: GroupScorer, sources: Sequence[str], *, ratings: Sequence[str]
) -> list[Unit]:
    """Returns the unit of one group, none where nothing is to be measured.

    `ratings` are the folders of its sources' units.
    """
    if scorer.retest is None:
        return []
    return [
        Unit(
            stage="score",
            name=f"retest of {scorer.group}",
            folder=scorer.retest,
            version=VERSION,
            config={
                **scorer.fingerprinted,
                "seed": scorer.judge.seed,
            },
            # An input, so that another number has it measured anew instead of refused.
            raw_inputs={"retest_records": str(scorer.judge.config.retest_records)},
            waits_for=tuple(ratings),
            upstream=(*map(layout.records, sources), *scorer.upstream),
            raw_files=scorer.raw_files,
            work="mira_megatron.scoring.retest:measure",
            settings=SampleSettings(sources=tuple(sources), scorer=scorer),
        )
    ]


def asked_again(scorer: GroupScorer) -> GroupScorer:
    """Returns the same scorer asked with another seed."""
    return scorer.answering(scorer.judge.config.answer_mode, scorer.judge.seed + _OTHER_SEED)


def measure(workspace: Workspace, settings: SampleSettings) -> WorkResult:
    """Writes the sample's ratings with both seeds, and how they agree."""
    scorer = settings.scorer
    askings = {"first": _tolerant(scorer), "again": _tolerant(asked_again(scorer))}
    num_records = scorer.judge.config.retest_records
    try:
        return compare_askings(workspace, settings, num_records, askings)
    except ValueError as error:
        raise ValueError(
            f"{error} All sources are scored: this was to measure how far the judge repeats itself,"
            " which score.retest_records=0 leaves out."
        ) from error


def _tolerant(scorer: GroupScorer) -> GroupScorer:
    config = scorer.judge.config
    most = max(config.max_failed_fraction, _MOST_FAILED)
    config = replace(config, max_failed_fraction=most, max_failures=None)
    return replace(scorer, judge=replace(scorer.judge, config=config))
