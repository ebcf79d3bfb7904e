"""How answers are drawn: a profile of a suite, named by who used these settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_NUMBERS = ("temperature", "top_p")
_COUNTS = ("num_samples", "max_tokens", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """One profile; what it leaves out, a benchmark's own template says."""

    name: str
    temperature: float = 0.0  # 0: the likeliest token each time
    top_p: float = 1.0
    num_samples: int = 1  # answers to each task
    max_tokens: int | None = None  # of an answer
    stop: tuple[str, ...] | None = None
    seed: int = 0  # the first of the requests' own; none is sent at temperature 0
    source: str = ""  # who used these settings

    def __post_init__(self) -> None:
        checks = {
            "temperature": (0 <= self.temperature <= 2, "in [0, 2]"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "num_samples": (self.num_samples >= 1, "at least 1"),
            "max_tokens": (self.max_tokens is None or self.max_tokens >= 1, "at least 1"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        for name, (is_right, expected) in checks.items():
            if not is_right:
                raise ValueError(f"{name}={getattr(self, name)!r} must be {expected}")
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                f"num_samples={self.num_samples} at temperature 0 asks for the same answer again; "
                "raise the temperature or ask for one"
            )


def read_sampling(fields: Any, where: str) -> Sampling:
    """Returns the profile of a mapping. Raises ValueError with where it stands."""
    known = ("temperature", "top_p", "num_samples", "max_tokens", "stop", "seed", "source")
    if not isinstance(fields, dict) or set(fields) - set(known):
        raise ValueError(f"{where}: {fields!r}, expected a mapping of {', '.join(known)}")
    given = dict(fields)
    for name in (*_NUMBERS, *_COUNTS):
        kind = (int, float) if name in _NUMBERS else int
        if name in given and (not isinstance(given[name], kind) or isinstance(given[name], bool)):
            expected = "a number" if name in _NUMBERS else "a whole number"
            raise ValueError(f"{where}.{name}={given[name]!r}, expected {expected}")
    stop = given.pop("stop", None)
    if stop is not None and not _are_words(stop):
        raise ValueError(f"{where}.stop={stop!r}, expected a list of words that are not empty")
    try:
        return Sampling(
            name=where.rpartition(".")[2], stop=None if stop is None else tuple(stop), **given
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _are_words(stop: Any) -> bool:
    return isinstance(stop, list) and all(isinstance(word, str) and word for word in stop)
