"""Which answers an evaluation needs: for every task as many as the sampling profile says.

An answer is known by task, number, what was asked (the digest of the prompt), how it was drawn and
the seed. Where any of these changes, another answer is needed; the old one is not mixed with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mira_megatron.eval.benchmark import Benchmark, Prompt, Style
from mira_megatron.eval.generation.sampling import Sampling
from mira_megatron.eval.verdicts import Form, digest
from mira_megatron.scoring.record_seed import record_seed

Key = tuple[str, int, str, str, int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One answer that is needed."""

    task_id: str
    number: int  # of the task's answers, from 0
    prompt: Prompt
    prompt_digest: str
    profile: Sampling
    seed: int | None  # None at temperature 0
    style: Style

    @property
    def sampling(self) -> str:
        """Returns how the answer is drawn, in words."""
        return (
            f"temperature={float(self.profile.temperature)} top_p={float(self.profile.top_p)} "
            f"max_tokens={self.prompt.max_tokens}"
        )

    @property
    def key(self) -> Key:
        """Returns what the answer is known by."""
        return (self.task_id, self.number, self.prompt_digest, self.sampling, self.seed)

    @property
    def form(self) -> Form:
        """Returns what the answer's text is going to be."""
        return Form.ANSWER if self.style is Style.CHAT else Form.COMPLETION

    @property
    def beginning(self) -> str:
        """Returns the beginning of the answer that the prompt gives, "" where it gives none."""
        messages = self.prompt.messages
        return messages[-1]["content"] if messages and _is_of_assistant(messages[-1]) else ""


def planned_answers(
    benchmark: Benchmark, sampling: Sampling, style: Style, *, limit: int | None = None
) -> list[Planned]:
    """Returns the answers to all tasks, or the first `limit`, in the order of the file.

    Raises ValueError where the benchmark cannot be asked in this style.
    """
    planned = []
    for task_id in benchmark.task_ids[:limit]:
        prompt = _with_overrides(benchmark.prompt(task_id, style), sampling)
        prompt_digest = digest_of(prompt)
        planned += [
            Planned(
                task_id=task_id,
                number=number,
                prompt=prompt,
                prompt_digest=prompt_digest,
                profile=sampling,
                seed=_seed(sampling, task_id, number),
                style=style,
            )
            for number in range(sampling.num_samples)
        ]
    return planned


def by_request_settings(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Returns the answers in groups whose requests differ in text and seed alone."""
    groups: dict[tuple[object, ...], list[Planned]] = {}
    for each in planned:
        settings = (each.prompt.stop, each.prompt.max_tokens, bool(each.beginning))
        groups.setdefault(settings, []).append(each)
    return list(groups.values())


def asked_of(planned: Sequence[Planned]) -> dict[str, list[str]]:
    """Returns what the answers were asked with, in words; two numbers are compared by it."""
    return {
        "template": sorted({each.prompt.template for each in planned}),
        "sampling": sorted({each.sampling for each in planned}),
        "profile": sorted({each.profile.name for each in planned}),
    }


def digest_of(prompt: Prompt) -> str:
    """Returns the digest of all that a model is told, and of where its answer is cut."""
    messages = [dict(message) for message in prompt.messages]
    return digest(
        prompt.template,
        prompt.text,
        json.dumps(messages, sort_keys=True),
        json.dumps(prompt.stop),
    )


def _with_overrides(prompt: Prompt, sampling: Sampling) -> Prompt:
    return replace(
        prompt,
        max_tokens=prompt.max_tokens if sampling.max_tokens is None else sampling.max_tokens,
        stop=prompt.stop if sampling.stop is None else sampling.stop,
    )


def _seed(sampling: Sampling, task_id: str, number: int) -> int | None:
    """Returns the seed of a request: no other task or sample moves it."""
    if sampling.temperature == 0:
        return None
    return record_seed(sampling.seed, task_id, number + 1)


def _is_of_assistant(message: Mapping[str, str]) -> bool:
    return message.get("role") == "assistant"
