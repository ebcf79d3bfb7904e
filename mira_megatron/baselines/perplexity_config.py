"""The settings of a perplexity: the reference model, what it sees of a record, which losses are
kept, and with `engine: endpoint` how its server is asked, by the judge's own settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mira_megatron.config import nearest, typed
from mira_megatron.retention.arms import SCOPES
from mira_megatron.scoring.judge_config import DTYPES, JudgeConfig, check_has_model

ENGINES = ("transformers", "endpoint")
_BANDS = ("middle", "low", "high")
# What generates one token at no expense; it decides no loss.
_ASKED_WITH = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 1}
# Those of JudgeConfig that say how an endpoint is asked.
_ENDPOINT_SETTINGS = (
    *("endpoints", "api_key_env", "request_fields", "answers_folder"),
    *("max_in_flight", "timeout_seconds", "max_retries", "patience_seconds"),
    *("max_failed_fraction", "max_failures", "spend_ceiling"),
    *("price_per_million_prompt_tokens", "price_per_million_output_tokens"),
    *("prompt_token_ceiling", "output_token_ceiling"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PerplexityConfig:
    """The reference model, what it sees of a record, and which losses are kept."""

    model: str  # transformers: a Hugging Face folder; endpoint: the name that it is served under
    engine: str = "transformers"
    tokenizer: str | None = field(
        default=None, metadata={"execution": True}
    )  # endpoint: the model's own tokenizer.json, or the folder with it
    window_tokens: int = 2048  # QuRating's and DataMan's
    stride_tokens: int | None = None  # None: the first window alone
    band: str = "middle"
    scope: str = "group"  # whose median is the middle; give the arm the same
    dtype: str = "auto"  # transformers

    def __post_init__(self) -> None:
        for name, valid in (
            ("engine", ENGINES),
            ("band", _BANDS),
            ("scope", SCOPES),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) not in valid:
                value = getattr(self, name)
                raise ValueError(f"{name}={value!r} must be one of {', '.join(valid)}")
        if self.window_tokens < 2:
            raise ValueError(f"window_tokens={self.window_tokens} must be at least 2")
        if self.stride_tokens is not None and not 0 < self.stride_tokens < self.window_tokens:
            raise ValueError(
                f"stride_tokens={self.stride_tokens} must be in 1..{self.window_tokens - 1}, below "
                "window_tokens: every window needs context"
            )
        if self.engine == "endpoint" and self.tokenizer is None:
            raise ValueError(
                "engine=endpoint needs tokenizer, the served model's own tokenizer.json: windows "
                "are cut here and sent as token ids"
            )
        if self.engine == "endpoint" and self.dtype != "auto":
            raise ValueError(f"dtype={self.dtype} is the server's to choose with engine=endpoint")
        if self.engine == "transformers" and self.tokenizer is not None:
            raise ValueError("tokenizer is for engine=endpoint; transformers has the model's own")


def perplexity_config(
    values: Mapping[str, Any], where: str
) -> tuple[PerplexityConfig, JudgeConfig | None]:
    """Returns the settings, and with `engine: endpoint` how the server is asked.

    Raises ValueError naming the place `where` and the key that is wrong.
    """
    own = [each.name for each in fields(PerplexityConfig)]
    is_asked = values.get("engine") == "endpoint"
    for key in values:
        if key in _ENDPOINT_SETTINGS and not is_asked:
            raise ValueError(f"{where}: {key} is for engine=endpoint")
        if key not in (*own, *_ENDPOINT_SETTINGS):
            valid = (*own, *_ENDPOINT_SETTINGS) if is_asked else own
            raise ValueError(f"{where}: unknown key {key!r}.{nearest(str(key), valid)}")
    config = typed(
        PerplexityConfig, {name: values[name] for name in own if name in values}, where=where
    )
    if not is_asked:
        return config, None
    asked = {name: values[name] for name in _ENDPOINT_SETTINGS if name in values}
    asking = {"engine": config.engine, "model": config.model, **_ASKED_WITH, **asked}
    judge = typed(JudgeConfig, asking, where=where)
    check_has_model(judge, where)
    return config, judge
