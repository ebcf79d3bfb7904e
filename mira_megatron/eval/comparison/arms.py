"""Checkpoints to be compared: each a label and the folders of its evaluations.

Several folders of one label are one arm evaluated several times, with other seeds of training or of
sampling. A task's score is then the mean over them; each folder's own numbers stay visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.eval.comparison.outputs import Evaluation, Outcome, read_evaluation
from mira_megatron.eval.comparison.protocol import Protocol, Unlikeness, unlikenesses


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One column of the comparison."""

    label: str
    runs: tuple[Evaluation, ...]

    @property
    def benchmarks(self) -> list[str]:
        """Returns what any run has, in the order met."""
        return list(dict.fromkeys(name for run in self.runs for name in run.outcomes))

    def outcomes(self, benchmark: str) -> list[Outcome]:
        """Returns what the runs have of a benchmark; fewer than runs where one lacks it."""
        return [run.outcomes[benchmark] for run in self.runs if benchmark in run.outcomes]

    def is_whole(self, benchmark: str) -> bool:
        """Returns whether every run has the benchmark."""
        return all(benchmark in run.outcomes for run in self.runs)

    def protocol(self, benchmark: str) -> Protocol:
        """Returns what the runs share; they were checked to."""
        return self.outcomes(benchmark)[0].protocol


def read_arms(folders: Sequence[Path], labelled: Sequence[tuple[str, Path]]) -> list[Arm]:
    """Returns the arms: folders under their own names, then labels in the order first met.

    Raises ValueError for a folder given twice, for folders of one name without a label, and for
    runs of one label that are not of one protocol.
    """
    given = [(folder.resolve().name, folder) for folder in folders]
    names = [label for label, _ in given]
    for label in names:
        if names.count(label) > 1 or any(label == other for other, _ in labelled):
            raise ValueError(
                f"two folders would be called {label!r}; name them with --label NAME=DIR "
                "(one name for several folders means seeds of one arm)"
            )
    by_label: dict[str, list[Path]] = {}
    seen: dict[Path, str] = {}
    for label, folder in (*given, *labelled):
        if not label.strip() or not label.isprintable():
            raise ValueError(f"{label!r} is no label: expected printable text; --label NAME=DIR")
        if (place := folder.resolve()) in seen:
            raise ValueError(f"{folder} is given twice, as {seen[place]!r} and {label!r}")
        seen[place] = label
        by_label.setdefault(label, []).append(folder)
    return [_arm(label, paths) for label, paths in by_label.items()]


def unlike_benchmarks(arms: Sequence[Arm]) -> dict[str, list[Unlikeness]]:
    """Returns in which fields the arms' protocols differ, by benchmark; alike ones are left out."""
    names = dict.fromkeys(name for arm in arms for name in arm.benchmarks)
    found = {}
    for name in names:
        protocols = {arm.label: arm.protocol(name) for arm in arms if arm.outcomes(name)}
        if fields := unlikenesses(name, protocols):
            found[name] = fields
    return found


def _arm(label: str, paths: Sequence[Path]) -> Arm:
    runs = tuple(read_evaluation(path) for path in paths)
    arm = Arm(label=label, runs=runs)
    for name in arm.benchmarks:
        protocols: Mapping[str, Protocol] = {
            str(run.folder): run.outcomes[name].protocol for run in runs if name in run.outcomes
        }
        if found := unlikenesses(name, protocols):
            raise ValueError(
                f"the folders of {label!r} are not of one protocol: "
                + "; ".join(map(str, found))
                + ". Give each a label of its own"
            )
    return arm
