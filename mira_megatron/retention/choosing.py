"""The choice of one arm: pinned sources first, the rest of the budget shared out to the scopes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mira_megatron.retention.arms import UNSPENT_SHARE, ArmConfig, check_floors
from mira_megatron.retention.budgets import shared_budgets
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.documents import scope_name
from mira_megatron.retention.offers import keepable_tokens
from mira_megatron.retention.scopes import Chosen, Cut, choose_in_scope


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What one arm keeps."""

    sources: Mapping[str, Chosen]
    cuts: Mapping[str, Cut]  # by scope


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierChoice:
    """A choice under the same settings, and the sources whose scores are others than it had."""

    choice: Choice
    rescored: AbstractSet[str]

    def holds(self, scope: str, entries: Sequence[SourceDocuments], budget_tokens: int) -> bool:
        """Returns whether a scope is cut as it was then: its documents and its budget are the same.

        Its budget alone may be another: what a source without scores cannot fill goes to others,
        and a floor reserves no more than there is.
        """
        is_rescored = any(entry.source in self.rescored for entry in entries)
        return not is_rescored and self.choice.cuts[scope].budget_tokens == budget_tokens


def choose(
    documents: Sequence[SourceDocuments],
    config: ArmConfig,
    *,
    seed: int,
    groups: Mapping[str, str],
    pinned: Sequence[str],
    budget_tokens: int,
    where: str,
    earlier: EarlierChoice | None = None,
) -> Choice:
    """Returns what is kept of every source, and where each scope's ranking was cut.

    `groups` names the ranked sources' groups. With an `earlier` choice only scopes that may be cut
    otherwise are ranked; the result is the same. Raises ValueError, which begins with `where`, for
    pinned sources and floors that do not fit the budget.
    """
    chosen = {
        entry.source: _unranked(entry, is_pinned=entry.source in pinned)
        for entry in documents
        if entry.source not in groups
    }
    pinned_tokens = sum(entry.trainable_tokens for entry in documents if entry.source in pinned)
    if pinned_tokens > budget_tokens:
        raise ValueError(
            f"{where}: the pinned sources {', '.join(pinned)} hold "
            f"{pinned_tokens:,} tokens, more than the whole budget of {budget_tokens:,}. Raise the "
            "budget, or pin fewer (pinned, or adopt.<source>.unscored: leave_out)."
        )
    members: dict[str, list[SourceDocuments]] = {}
    for entry in documents:
        if entry.source in groups:
            scope = scope_name(config.scope, source=entry.source, source_group=groups[entry.source])
            members.setdefault(scope, []).append(entry)
    budgets = _scope_budgets(members, config, budget_tokens - pinned_tokens, where)
    cuts = {}
    for scope, entries in members.items():
        if earlier is not None and earlier.holds(scope, entries, budgets[scope]):
            chosen |= {entry.source: earlier.choice.sources[entry.source] for entry in entries}
            cuts[scope] = earlier.choice.cuts[scope]
            continue
        of_scope, cuts[scope] = choose_in_scope(entries, config, seed, budgets[scope])
        chosen |= of_scope
    return Choice(sources=chosen, cuts=cuts)


def budget_of(documents: Sequence[SourceDocuments], config: ArmConfig) -> int:
    """Returns the budget; a fraction is one of all trainable tokens, in whatever arm they are.

    What the arm's masks deny counts for nothing, in another arm or not: so phases under the same
    masks take their fractions of the same whole.
    """
    if config.budget_tokens is not None:
        return config.budget_tokens
    assert config.budget_fraction is not None
    available = sum(
        entry.trainable_tokens
        + entry.tokens_barred(Decision.IN_ANOTHER_ARM)
        - entry.tokens_denied_in_another_arm
        for entry in documents
    )
    return math.floor(Fraction(str(config.budget_fraction)) * available)


def _unranked(entry: SourceDocuments, *, is_pinned: bool) -> Chosen:
    is_kept_D = entry.is_trainable_D & is_pinned
    decisions_D = entry.barred_D.copy()
    decisions_D[entry.is_trainable_D & ~is_kept_D] = Decision.SOURCE_NOT_TRAINED_ON
    return Chosen(times_D=is_kept_D.astype(np.uint8), decisions_D=decisions_D)


def _scope_budgets(
    members: Mapping[str, Sequence[SourceDocuments]],
    config: ArmConfig,
    budget_tokens: int,
    where: str,
) -> dict[str, int]:
    keepable = {
        entry.source: keepable_tokens(entry, config.nulls)
        for entries in members.values()
        for entry in entries
    }
    # More than there is cannot be reserved, and would be withheld from the others.
    floors = {
        source: min(tokens, keepable[source]) for source, tokens in config.floor_tokens.items()
    }
    check_floors(where, floors, budget_tokens, "budget that is left after pinned sources")
    capped = {
        source: min(tokens, config.cap_tokens.get(source, tokens))
        for source, tokens in keepable.items()
    }
    weights = {
        scope: sum(entry.trainable_tokens for entry in entries)
        for scope, entries in members.items()
    }
    if config.shares == "equal":
        weights = {scope: int(tokens > 0) for scope, tokens in weights.items()}

    def summed(tokens: Mapping[str, int]) -> dict[str, int]:
        return {
            scope: sum(tokens.get(entry.source, 0) for entry in entries)
            for scope, entries in members.items()
        }

    return shared_budgets(
        budget_tokens,
        weights,
        floors=summed(floors),
        capacities=summed(capped) if config.unspent == UNSPENT_SHARE else None,
    )
