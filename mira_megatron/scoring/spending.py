"""What a judge has cost, kept under its ceilings whatever order answers come in.

Spent is what answers cost, those of earlier runs included, and at its most what brought no answer
but may have been billed. What is in flight is set aside at the most it can cost, so that nothing is
started which could lead above a ceiling. The answer store remembers all of it, so that neither
another run nor kill -9 makes room under the ceiling.
"""

from __future__ import annotations

from mira_megatron.scoring.answer_store import AnswerStore, Charged, StoredAnswer
from mira_megatron.scoring.ceilings import Ceilings


class Spending:
    """What a model has cost, and what is set aside for it; without a ceiling everything fits.

    Without a ceiling the store is told of answers alone, and what brought none is counted by this
    process only: a line before each request would double what is written.
    """

    def __init__(self, *, store: AnswerStore, model: str, ceilings: Ceilings) -> None:
        self.ceilings = ceilings
        self._store = store
        self._model = model
        self._sent: dict[str, tuple[int | None, Charged]] = {}
        self._lost = Charged()  # and not noted by the store

    @property
    def committed(self) -> Charged:
        """Returns what is spent, and the most that everything in flight can add to it."""
        unnoted = (most for number, most in self._sent.values() if number is None)
        return sum(unnoted, start=self._store.charged(self._model) + self._lost)

    def reserve(self, key: str, most: Charged) -> bool:
        """Sets aside the most that a request can cost; False where it does not fit."""
        assert key not in self._sent, key
        if not self.ceilings.are_on_charges:
            self._sent[key] = None, most
            return True
        if self.ceilings.fits(self.committed, most) is not None:
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
        else:
            self._store.lose(number)
        return self.reserve(key, most)

    def settle(self, key: str, stored: StoredAnswer | None) -> None:
        """Keeps the answer, charged at what it cost; None for a request that cost nothing."""
        number, _ = self._sent.pop(key, (None, None))
        if stored is not None:
            self._store.put(stored, number)
        elif number is not None:
            self._store.end(number)
