"""The protocol fingerprint: all that two numbers must share before they are put beside each other.

A score is of a model only as far as everything else is equal: the data file, the tasks graded, how
the model was asked and sampled, who graded, and how well the programs were isolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from mira_megatron.eval.verdicts import digest

NOT_RECORDED = "not recorded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """What one benchmark's numbers stand on, each as text."""

    data: str  # SHA-256 of the data file, or a digest of several files
    settings: str  # of the benchmark: a release, a window, a split, the version of an engine
    tasks: str  # how many were graded, and a digest of which
    samples: str  # per task
    protocol: str  # the suite's name for it
    template: str  # of the prompts, with version; NOT_RECORDED of predictions made elsewhere
    style: str
    sampling: str
    grader: str
    isolation: str  # the sandbox's level

    @property
    def fingerprint(self) -> str:
        """Returns 12 hexadecimal digits that are equal where everything is."""
        return digest(*(f"{name}={value}" for name, value in asdict(self).items()))[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unlikeness:
    """One field in which a benchmark's numbers differ."""

    benchmark: str
    field: str
    values: Mapping[str, str]  # by checkpoint

    @property
    def said(self) -> str:
        """Returns the field with its values, which many benchmarks may share."""
        values = ", ".join(f"{label}: {value}" for label, value in self.values.items())
        return f"{self.field} is {values}"

    def __str__(self) -> str:
        return f"{self.benchmark}.{self.said}"


def unlikenesses(benchmark: str, protocols: Mapping[str, Protocol]) -> list[Unlikeness]:
    """Returns the fields that are not the same for all checkpoints, in a fixed order."""
    fields = {label: asdict(protocol) for label, protocol in protocols.items()}
    names: Sequence[str] = list(next(iter(fields.values()))) if fields else []
    return [
        Unlikeness(
            benchmark=benchmark,
            field=name,
            values={label: each[name] for label, each in fields.items()},
        )
        for name in names
        if len({each[name] for each in fields.values()}) > 1
    ]


def grouped_by_values(unlike: Iterable[Unlikeness]) -> list[str]:
    """Returns a line per field and values, with the benchmarks that have them."""
    groups: dict[str, list[str]] = {}
    for each in unlike:
        groups.setdefault(each.said, []).append(each.benchmark)
    return [f"{said} ({', '.join(names)})" for said, names in groups.items()]
