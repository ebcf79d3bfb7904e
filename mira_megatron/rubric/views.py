"""How much of a record a judge is shown, counted in the judge's tokens.

whole        the record as it is: no limit was set, or it fits
head_tail    text: its head and tail; a question and its answer: head and tail of every part that is
             longer than its share of the limit, the question last
agent_turns  the task, the last turns and the failing tool calls with their results (the latest of
             them, where not all fit), then further turns from the last backwards; see `agent_view`

Where something was left out, a note says how many tokens. A shown record never has more tokens
than the limit, as it is sent (see `token_cuts`), and stays valid JSON of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from mira_megatron.corpus.renderers import FIELDS_BY_FAMILY
from mira_megatron.records import Record
from mira_megatron.rubric.agent_view import show_turns
from mira_megatron.rubric.token_cuts import TokenCounter, fair_shares, largest_fitting

POLICIES = ("whole", "head_tail", "agent_turns")
# With one byte per token, the worst there is, an empty payload of any family still fits.
MIN_TOKENS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a judge is shown of one record."""

    text: str
    policy: str  # one of POLICIES
    num_record_tokens: int | None  # in the judge's tokens; None where no limit was set
    num_shown_tokens: int | None


class ViewMaker:
    """Shows records to one judge. Without a limit nothing is counted."""

    def __init__(self, max_tokens: int | None, tokenizer_file: Path | None) -> None:
        if (max_tokens is None) != (tokenizer_file is None):
            raise ValueError("max_tokens and tokenizer_file go together: give both or neither")
        if max_tokens is not None and max_tokens < MIN_TOKENS:
            raise ValueError(f"max_tokens={max_tokens} must be at least {MIN_TOKENS}")
        self._max_tokens = max_tokens
        self._counter = None if tokenizer_file is None else TokenCounter(tokenizer_file)

    def view(self, record: Record) -> View:
        """Returns the whole record where it fits, else what its family's policy shows of it.

        Raises ValueError for a record whose payload does not fit its family.
        """
        whole = record.text if record.payload is None else record.payload
        if self._max_tokens is None or self._counter is None:
            return View(text=whole, policy="whole", num_record_tokens=None, num_shown_tokens=None)
        measured = self._counter.measure(whole)
        text, policy, num_shown = whole, "whole", measured.num_tokens
        if measured.num_tokens > self._max_tokens:
            policy = "agent_turns" if record.family == "agent" else "head_tail"
            show = measured.cut if record.payload is None else _show(record, self._counter)
            fitting = largest_fitting(show, self._max_tokens, self._counter)
            text, num_shown = fitting or (show(0), self._counter.count(show(0)))
        return View(
            text=text,
            policy=policy,
            num_record_tokens=measured.num_tokens,
            num_shown_tokens=num_shown,
        )


def _show(record: Record, counter: TokenCounter) -> Callable[[int], str]:
    """Returns what makes a shorter payload of a structured record, for a number of tokens."""
    payload = orjson.loads(record.payload or "null")
    needed = FIELDS_BY_FAMILY[record.family]
    if not isinstance(payload, dict) or not payload.keys() >= {*needed}:
        raise ValueError(
            f"record {record.record_id} of source {record.source}: its payload does not hold "
            f"{', '.join(needed)}, which family {record.family} has. Ingest the source again."
        )
    if record.family == "agent":
        return show_turns(payload["messages"], counter)
    return show_parts({name: payload[name] for name in needed}, counter)


def show_parts(parts: Mapping[str, str], counter: TokenCounter) -> Callable[[int], str]:
    """Returns what makes the JSON of the parts, cut to a budget of tokens; for 0 they are empty.

    The question has up to half of the budget, or what the others leave of it; the others share the
    rest, the short ones leaving theirs to the long.
    """
    measured = {name: counter.measure(text) for name, text in parts.items()}
    question = measured["question"].num_tokens
    others = [name for name in parts if name != "question"]
    sizes = [measured[name].num_tokens for name in others]

    def show(budget: int) -> str:
        kept = min(question, max(budget // 2, budget - sum(sizes)))
        shares = dict(zip(others, fair_shares(sizes, budget - kept), strict=True))
        shares["question"] = kept
        shown = {name: measured[name].cut(shares[name]) if budget else "" for name in parts}
        return orjson.dumps(shown, option=orjson.OPT_SORT_KEYS).decode()

    return show
