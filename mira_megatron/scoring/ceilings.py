"""Hard ceilings on money, tokens and failures, in exact numbers.

Pure: what was charged, and the most that the next request can be charged, come from whoever keeps
count. A request is started only where everything fits with it at its most, so that no order of
answers leads above a ceiling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from mira_megatron.scoring.answer_store import Charged
from mira_megatron.scoring.judge_config import JudgeConfig

_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What asking a judge may come to; None: no ceiling."""

    spend: Fraction | None  # in the currency of the prices
    prompt_tokens: int | None
    output_tokens: int | None
    failures: int | None
    failed_fraction: Fraction  # of the records asked about
    price_per_million_prompt: Fraction
    price_per_million_output: Fraction

    @classmethod
    def of(cls, judge: JudgeConfig) -> Self:
        """Returns the ceilings of a judge's settings, decimals as they were written."""
        spend = judge.spend_ceiling
        return cls(
            spend=None if spend is None else _exact(spend),
            prompt_tokens=judge.prompt_token_ceiling,
            output_tokens=judge.output_token_ceiling,
            failures=judge.max_failures,
            failed_fraction=_exact(judge.max_failed_fraction),
            price_per_million_prompt=_exact(judge.price_per_million_prompt_tokens),
            price_per_million_output=_exact(judge.price_per_million_output_tokens),
        )

    @property
    def are_on_charges(self) -> bool:
        """Returns whether any ceiling needs a count of what was charged."""
        return not (
            self.spend is None and self.prompt_tokens is None and self.output_tokens is None
        )

    def cost(self, charged: Charged) -> Fraction:
        """Returns what these tokens cost."""
        prompt = self.price_per_million_prompt * charged.num_prompt_tokens
        output = self.price_per_million_output * charged.num_output_tokens
        return (prompt + output) / _MILLION

    def fits(self, charged: Charged, most: Charged) -> str | None:
        """Returns the setting that the next request could break, at its most; None where it fits.

        `charged` holds what is spent and what is in flight, at its most.
        """
        together = charged + most
        if self.prompt_tokens is not None and together.num_prompt_tokens > self.prompt_tokens:
            return "prompt_token_ceiling"
        if self.output_tokens is not None and together.num_output_tokens > self.output_tokens:
            return "output_token_ceiling"
        if self.spend is not None and self.cost(together) > self.spend:
            return "spend_ceiling"
        return None

    def reached(self, setting: str, charged: Charged, most: Charged) -> str:
        """Returns how far it is to the ceiling that `fits` named, as the start of a message."""
        match setting:
            case "prompt_token_ceiling":
                return _tokens(
                    setting, self.prompt_tokens, charged.num_prompt_tokens, most.num_prompt_tokens
                )
            case "output_token_ceiling":
                return _tokens(
                    setting, self.output_tokens, charged.num_output_tokens, most.num_output_tokens
                )
            case _:
                assert self.spend is not None
                spent, next_costs = float(self.cost(charged)), float(self.cost(most))
                return (
                    f"{spent:,.4f} of {setting}={float(self.spend)} is spent and the next "
                    f"request can cost up to {next_costs:,.4f}"
                )

    def most_failures(self, num_records: int) -> int:
        """Returns how many of `num_records` records may fail; with one more the run is stopped."""
        by_fraction = math.floor(self.failed_fraction * num_records)
        return by_fraction if self.failures is None else min(by_fraction, self.failures)


def _tokens(setting: str, ceiling: int | None, charged: int, most: int) -> str:
    assert ceiling is not None
    return (
        f"{charged:,} tokens of {setting}={ceiling:,} are spent and the next request can take up "
        f"to {most:,}"
    )


def _exact(number: float) -> Fraction:
    """Returns the decimal that was written, not the binary fraction nearest to it."""
    return Fraction(str(number))
