"""Who judges records, and how it is asked: the `teacher` and `score` sections of a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mira_megatron.endpoints import base_url, check_key_name

ENGINES = ("rule_judge", "endpoint")
# Fields of a request's body that a setting of the same name decides; null leaves them out.
_OPTIONAL_FIELDS = ("temperature", "top_p", "max_tokens", "seed")
_FIXED_FIELDS = ("model", "messages", "n", "best_of", "stream")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """A judge: the embedded rule judge, or a model behind OpenAI-compatible endpoints."""

    engine: str  # one of ENGINES
    max_record_tokens: int | None = None  # of a record, in the tokens of `tokenizer`; None: whole
    tokenizer: str | None = None  # the judge's tokenizer.json; needed for max_record_tokens
    # engine=endpoint only, and needed there:
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    # engine=endpoint only:
    request_fields: dict[str, Any] = field(default_factory=dict)  # more fields of the request body
    endpoints: list[str] = field(default_factory=list, metadata={"execution": True})
    api_key_env: str | None = field(default=None, metadata={"execution": True})
    max_in_flight: int = field(default=64, metadata={"execution": True})
    timeout_seconds: float = field(default=600.0, metadata={"execution": True})
    max_retries: int = field(default=5, metadata={"execution": True})
    # Answers asked for while none can be read. Like a retry it decides which records have an
    # answer, never what an answer is: one that could be read stands, whatever this is raised to.
    max_attempts: int = field(default=1, metadata={"execution": True})
    max_failed_fraction: float = field(default=0.01, metadata={"execution": True})
    # A ceiling in the currency of the prices; with both prices at 1 it counts million tokens.
    price_per_million_prompt_tokens: float = field(default=0.0, metadata={"execution": True})
    price_per_million_output_tokens: float = field(default=0.0, metadata={"execution": True})
    spend_ceiling: float | None = field(default=None, metadata={"execution": True})
    answers_folder: str | None = field(default=None, metadata={"execution": True})

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} must be one of {', '.join(ENGINES)}")
        for name in ("model", "temperature", "top_p", "max_tokens", "endpoints"):
            is_given = getattr(self, name) not in (None, [])
            if self.engine == "endpoint" and not is_given:
                raise ValueError(f"engine=endpoint needs {name}")
            if self.engine == "rule_judge" and is_given:
                raise ValueError(f"{name} is for engine=endpoint; engine=rule_judge takes none")
        self._check_ranges()
        if (self.max_record_tokens is None) != (self.tokenizer is None):
            raise ValueError("max_record_tokens and tokenizer go together: give both or neither")
        if self.max_record_tokens is not None and self.max_record_tokens < 64:
            raise ValueError(f"max_record_tokens={self.max_record_tokens} must be at least 64")
        if not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(f"max_failed_fraction={self.max_failed_fraction} must be in [0, 1]")
        for endpoint in self.endpoints:
            base_url(endpoint)
        check_key_name(self.api_key_env)
        self._check_prices()
        _check_request_fields(self.request_fields, self.max_tokens)

    def _check_ranges(self) -> None:
        for name in ("max_tokens", "max_attempts", "max_in_flight", "timeout_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be a number above 0")
        for name in ("max_retries", "temperature"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be a number of at least 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be in (0, 1]")

    def _check_prices(self) -> None:
        names = ("price_per_million_prompt_tokens", "price_per_million_output_tokens")
        for name in (*names, "spend_ceiling"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be a number of at least 0")
        if self.spend_ceiling is not None and not any(getattr(self, name) for name in names):
            raise ValueError(
                f"spend_ceiling={self.spend_ceiling} needs prices: give {' and '.join(names)}, in "
                "one currency (both at 1: the ceiling counts million tokens)"
            )


def _check_request_fields(fields: Mapping[str, Any], max_tokens: int | None) -> None:
    for name, value in fields.items():
        if name in _FIXED_FIELDS or (name in _OPTIONAL_FIELDS and value is not None):
            raise ValueError(
                f"request_fields.{name}: this field of a request is not free to set"
                + (f"; use the setting {name}" if name in ("model", *_OPTIONAL_FIELDS[:3]) else "")
            )
    # Some vendors take only the second name; one of the two has to bound what an answer can cost.
    bound = fields.get("max_completion_tokens")
    if ("max_tokens" in fields or "max_completion_tokens" in fields) and bound != max_tokens:
        raise ValueError(
            f"request_fields.max_completion_tokens={bound!r} must equal max_tokens={max_tokens}, "
            "also where request_fields.max_tokens=null leaves out the other name"
        )
