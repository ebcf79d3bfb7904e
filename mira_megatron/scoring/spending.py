"""A ceiling on what a judge may cost, which holds whatever order answers come in.

Spent is what answers cost, those of earlier runs included. What is in flight is reserved at the
most it can cost, so that nothing is started which could lead above the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from mira_megatron.scoring.answer_store import Charged

_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What a million tokens cost, exactly."""

    prompt: Fraction
    output: Fraction

    @classmethod
    def per_million(cls, *, prompt: float, output: float) -> Self:
        """Returns the prices as they were written in decimals."""
        return cls(prompt=Fraction(str(prompt)), output=Fraction(str(output)))

    def cost(self, charged: Charged) -> Fraction:
        """Returns what these tokens cost."""
        tokens = self.prompt * charged.num_prompt_tokens + self.output * charged.num_output_tokens
        return tokens / _MILLION


class Spending:
    """What has been spent and what is reserved; without a ceiling everything fits."""

    def __init__(self, *, spent: Fraction, ceiling: float | None) -> None:
        self.spent = spent
        self._ceiling = None if ceiling is None else Fraction(str(ceiling))
        self._reserved: dict[str, Fraction] = {}

    @property
    def committed(self) -> Fraction:
        """Returns what is spent, and the most that everything in flight can add to it."""
        return self.spent + sum(self._reserved.values(), Fraction(0))

    def reserve(self, key: str, most: Fraction) -> bool:
        """Sets aside the most that a request can cost; False where it does not fit."""
        assert key not in self._reserved, key
        if self._ceiling is not None and self.committed + most > self._ceiling:
            return False
        self._reserved[key] = most
        return True

    def lose(self, key: str) -> bool:
        """Counts a request that may have been billed as spent, and sets its most aside again.

        False, and nothing set aside, where another attempt does not fit.
        """
        most = self._reserved.pop(key)
        self.spent += most
        return self.reserve(key, most)

    def settle(self, key: str, cost: Fraction) -> None:
        """Counts what a request cost in the end, and sets nothing more aside for it."""
        self._reserved.pop(key, None)
        self.spent += cost
