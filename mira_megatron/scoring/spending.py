"""A ceiling on what a judge may cost, which holds whatever order answers come in.

Spent is what answers cost, those of earlier runs included, and at its most what brought no answer
but may have been billed. What is in flight is set aside at the most it can cost, so that nothing is
started which could lead above the ceiling. The answer store remembers all of it, so that neither
another run nor kill -9 makes room under the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from mira_megatron.scoring.answer_store import AnswerStore, Charged, StoredAnswer

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
    """What a model has cost, and what is set aside for it; without a ceiling everything fits.

    Without a ceiling the store is told of answers alone, and what brought none is counted by this
    process only: a line before each request would double what is written.
    """

    def __init__(
        self, *, store: AnswerStore, model: str, prices: Prices, ceiling: float | None
    ) -> None:
        self._store = store
        self._model = model
        self._prices = prices
        self._ceiling = None if ceiling is None else Fraction(str(ceiling))
        self._sent: dict[str, tuple[int | None, Charged]] = {}
        self._lost = Charged()  # and not noted by the store

    @property
    def committed(self) -> Fraction:
        """Returns what is spent, and the most that everything in flight can add to it."""
        unnoted = (most for number, most in self._sent.values() if number is None)
        return self._prices.cost(sum(unnoted, start=self._store.charged(self._model) + self._lost))

    def reserve(self, key: str, most: Charged) -> bool:
        """Sets aside the most that a request can cost; False where it does not fit."""
        assert key not in self._sent, key
        if self._ceiling is None:
            self._sent[key] = None, most
            return True
        if self.committed + self._prices.cost(most) > self._ceiling:
            return False
        self._sent[key] = self._store.send(self._model, most), most
        return True

    def lose(self, key: str) -> bool:
        """Leaves a request that may have been billed as spent, and sets its most aside again.

        False, and nothing set aside, where another attempt does not fit.
        """
        number, most = self._sent.pop(key)
        if number is None:
            self._lost += most
        return self.reserve(key, most)

    def settle(self, key: str, stored: StoredAnswer | None) -> None:
        """Keeps the answer, charged at what it cost; None for a request that cost nothing."""
        number, _ = self._sent.pop(key, (None, None))
        if stored is not None:
            self._store.put(stored, number)
        elif number is not None:
            self._store.end(number)
