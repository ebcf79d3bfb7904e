"""Bits per byte of arms on the documents that all models were measured on.

A group's bits per byte is the bits of its documents over their bytes, a ratio of two sums; under a
resample it is taken linearly around its value (Cochran 1977, section 6.3), so that a draw with few
bytes cannot blow up. How intervals and tests come about: estimates.py.

Shape letters: R resamples, D documents of a source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mira_megatron.ablation.estimates import ArmNumbers, Measured, Values, arms_numbers
from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Key,
    Resampling,
    resampled_scores,
)

MEAN = "mean over groups"  # unweighted; a group is named without spaces
_BYTES = ""  # in the place of a model's name, which is never empty


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """The documents that all models were measured on, by source, and what each model lost."""

    record_ids: Mapping[str, Sequence[str]]  # by source
    bytes_D: Mapping[str, Values]  # by source
    nats_D: Mapping[str, Mapping[str, Values]]  # by model and source
    groups: Mapping[str, Sequence[str]]  # source group -> its sources

    @property
    def names(self) -> list[str]:
        """Returns the numbers that an arm has: one per source group, and their mean."""
        return [*self.groups, MEAN]

    def value(self, model: str, group: str) -> float:
        """Returns a model's bits per byte on a source group."""
        nats = sum(float(self.nats_D[model][source].sum()) for source in self.groups[group])
        return nats / math.log(2) / self.num_bytes(group)

    def num_bytes(self, group: str) -> float:
        """Returns the bytes of a group's documents."""
        return sum(float(self.bytes_D[source].sum()) for source in self.groups[group])

    def num_documents(self, group: str) -> int:
        """Returns the documents of a source group."""
        return sum(len(self.record_ids[source]) for source in self.groups[group])


def arms_bits(
    held_out: HeldOut,
    arms: Mapping[str, Mapping[int, str]],
    *,
    reference: str | None,
    resampling: Resampling,
) -> dict[str, ArmNumbers]:
    """Returns the numbers of every arm by source group, and their mean; below the reference is
    better.

    `arms` names the model of each seed. Holm's correction covers all arms in two families: the mean
    over groups, and the groups.
    """
    measured = Measured(
        values={
            model: {name: _value(held_out, model, name) for name in held_out.names}
            for model in held_out.nats_D
        },
        drawn_R=_drawn_models(held_out, resampling),
        without_spread={name for name in held_out.names if not _has_spread(held_out, name)},
        is_lower_better=True,
        families=[[MEAN], list(held_out.groups)],
        names=held_out.names,
    )
    return arms_numbers(measured, arms, reference=reference, resampling=resampling)


def _value(held_out: HeldOut, model: str, name: str) -> float:
    if name != MEAN:
        return held_out.value(model, name)
    return math.fsum(held_out.value(model, group) for group in held_out.groups) / len(
        held_out.groups
    )


def _has_spread(held_out: HeldOut, name: str) -> bool:
    groups = list(held_out.groups) if name == MEAN else [name]
    return all(
        len(held_out.record_ids[source]) > 1
        for group in groups
        for source in held_out.groups[group]
    )


def _drawn_models(held_out: HeldOut, resampling: Resampling) -> dict[str, dict[str, Values]]:
    """Returns every model's numbers (R,) under the same draws of documents."""
    scored: dict[Key, ClusteredScores] = {}
    for source, record_ids in held_out.record_ids.items():
        columns = {model: nats[source] / math.log(2) for model, nats in held_out.nats_D.items()}
        for model, scores in {**columns, _BYTES: held_out.bytes_D[source]}.items():
            scored[model, source] = ClusteredScores(
                stratum=f"documents of {source}", scores=scores.tolist(), clusters=record_ids
            )
    means_R = resampled_scores(scored, resampling)
    found: dict[str, dict[str, Values]] = {}
    for model in held_out.nats_D:
        found[model] = {}
        for group, sources in held_out.groups.items():
            value = held_out.value(model, group)
            off_R = sum(
                (
                    len(held_out.record_ids[source])
                    * (means_R[model, source] - value * means_R[_BYTES, source])
                    for source in sources
                ),
                start=np.zeros(resampling.num_resamples),
            )
            found[model][group] = value + off_R / held_out.num_bytes(group)
        found[model][MEAN] = np.mean([found[model][group] for group in held_out.groups], axis=0)
    return found
