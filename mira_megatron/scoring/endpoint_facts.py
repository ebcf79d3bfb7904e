"""What a run's requests came to, for its last line and its progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mira_megatron.scoring.endpoint_pool import PooledEndpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointFacts:
    """How one endpoint did."""

    url: str
    state: str  # up, paused (it asked for patience) or out (it failed, and is looked at)
    limit: int  # requests at once, as found
    num_in_flight: int
    num_sent: int  # that came back
    num_failed: int  # of these: no connection, no answer in time, or an error of the server's


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What all endpoints together did; None where no server tells (only vLLM's do)."""

    num_sent: int  # requests that came back, each attempt counted
    num_retries: Mapping[str, int]  # by what was the matter, as Answer.failure
    num_prompt_tokens: int
    num_output_tokens: int
    endpoints: tuple[EndpointFacts, ...]
    cache_hit_fraction: float | None  # of the prompt tokens, found in the prefix cache
    idle_fraction: float | None  # of the looks at servers: nothing ran, though there was work

    def sentence(self) -> str:
        """Returns the facts as a part of a log line."""
        retries = [f"{kind} {num:,}" for kind, num in sorted(self.num_retries.items())]
        parts = [
            f"{self.num_sent:,} requests",
            f"{self.num_prompt_tokens:,} prompt and {self.num_output_tokens:,} output tokens",
            f"retries: {', '.join(retries)}" if retries else "no retries",
        ]
        if self.cache_hit_fraction is not None:
            parts.append(f"{self.cache_hit_fraction:.0%} of prompt tokens from the prefix cache")
        if self.idle_fraction is not None:
            parts.append(f"servers idle {self.idle_fraction:.0%} of the time")
        if len(self.endpoints) > 1:
            parts += [f"{each.url} {each.num_sent:,} ({each.state})" for each in self.endpoints]
        return "; ".join(parts)


def endpoint_facts(
    endpoints: Sequence[PooledEndpoint],
    *,
    num_retries: Mapping[str, int],
    num_prompt_tokens: int,
    num_output_tokens: int,
    now: float,
) -> Facts:
    """Returns the facts; `now` is by the clock of the pauses."""
    watches = [each.metrics for each in endpoints]
    return Facts(
        num_sent=sum(each.num_sent for each in endpoints),
        num_retries=dict(num_retries),
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=num_output_tokens,
        endpoints=tuple(
            EndpointFacts(
                url=each.url,
                state=_state(each, now),
                limit=each.concurrency.limit,
                num_in_flight=each.concurrency.num_in_flight,
                num_sent=each.num_sent,
                num_failed=each.num_failed,
            )
            for each in endpoints
        ),
        cache_hit_fraction=_fraction(
            sum(watch.num_hit for watch in watches), sum(watch.num_queried for watch in watches)
        ),
        idle_fraction=_fraction(
            sum(watch.num_idle_looks for watch in watches),
            sum(watch.num_looks for watch in watches),
        ),
    )


def _state(endpoint: PooledEndpoint, now: float) -> str:
    if endpoint.health.is_drained:
        return "out"
    return "paused" if endpoint.paused_until > now else "up"


def _fraction(part: float, whole: float) -> float | None:
    return part / whole if whole else None
