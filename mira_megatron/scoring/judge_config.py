"""Who judges records, and how it is asked: the `teacher` and `score` sections of a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mira_megatron.endpoints import base_url, check_key_name
from mira_megatron.rubric.digits import MOST_TOKENS

LOCAL_ENGINES = ("transformers", "vllm")  # a model on this machine, without a server
ENGINES = ("rule_judge", "endpoint", *LOCAL_ENGINES)
ANSWER_MODES = ("full", "scores_only", "expected")
_GUIDED_ENGINES = ("endpoint", "vllm")  # those that can hold a model to the form of an answer
DTYPES = ("auto", "float32", "bfloat16")
# What an entry may have, and must where the engine asks a model.
_ASKED_WITH = ("temperature", "top_p", "max_tokens")
_NOT_FOR_RULE_JUDGE = ("model", "model_path", *_ASKED_WITH, "endpoints")
_ENDPOINT_ONLY = ("endpoints", "request_fields", "api_key_env")
_LOCAL_ONLY = ("dtype", "max_model_len")
# Fields of a request's body that a setting of the same name decides; null leaves them out.
_OPTIONAL_FIELDS = ("temperature", "top_p", "max_tokens", "seed")
_FIXED_FIELDS = ("model", "messages", "n", "best_of", "stream")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """A judge: the rule judge, a model behind OpenAI-compatible endpoints, or one loaded here."""

    engine: str  # one of ENGINES
    # full: what the answer says. scores_only: the digits alone, by guided decoding (see
    # rubric.digits). expected: of a greedy answer, the mean of each slot's score by the
    # probabilities at its digits, without rationales (see expected_scores).
    answer_mode: str = "full"
    # The least agreement with mode `full` (Spearman, median over the anchors) that another mode
    # needs before a group is scored in it, and on how many records it is measured; None: it is not
    # (see mode_agreement). Decides whether there are ratings, never what they are. Full answers are
    # asked for with the same max_tokens, so that must be enough for them.
    min_mode_agreement: float | None = field(default=None, metadata={"execution": True})
    mode_agreement_records: int = field(default=200, metadata={"execution": True})
    # On how many records of a group a judge that samples is asked a second time, for a figure of
    # its test-retest agreement; 0: it is not (see retest). Decides nothing.
    retest_records: int = field(default=200, metadata={"execution": True})
    max_record_tokens: int | None = None  # of a record, in the tokens of `tokenizer`; None: whole
    tokenizer: str | None = None  # the judge's tokenizer.json; needed for max_record_tokens
    # For all engines but rule_judge. The model may be left to the recipe's own distilled scorer;
    # the others are needed.
    model: str | None = None
    model_path: str | None = field(
        default=None, metadata={"execution": True}
    )  # its Hugging Face folder
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    # engine=transformers or vllm only:
    dtype: str = "auto"  # one of DTYPES; auto: as the model's config.json says
    max_model_len: int | None = None  # tokens of prompt and answer; None: the most it was made for
    batch_size: int = field(default=32, metadata={"execution": True})  # transformers
    gpu_memory_utilization: float = field(default=0.9, metadata={"execution": True})  # vllm
    tensor_parallel_size: int = field(default=1, metadata={"execution": True})  # vllm
    # engine=endpoint only:
    request_fields: dict[str, Any] = field(default_factory=dict)  # more fields of the request body
    endpoints: list[str] = field(default_factory=list, metadata={"execution": True})
    api_key_env: str | None = field(default=None, metadata={"execution": True})
    max_in_flight: int = field(default=64, metadata={"execution": True})  # per endpoint
    timeout_seconds: float = field(default=600.0, metadata={"execution": True})
    max_retries: int = field(default=5, metadata={"execution": True})
    # How long to wait for endpoints of which none can be reached, before records fail.
    patience_seconds: float = field(default=600.0, metadata={"execution": True})
    # Answers asked for while none can be read. Like a retry it decides which records have an
    # answer, never what an answer is: one that could be read stands, whatever this is raised to.
    max_attempts: int = field(default=1, metadata={"execution": True})
    max_failed_fraction: float = field(default=0.01, metadata={"execution": True})
    max_failures: int | None = field(
        default=None, metadata={"execution": True}
    )  # likewise, a count
    # A ceiling in the currency of the prices; with both prices at 1 it counts million tokens.
    price_per_million_prompt_tokens: float = field(default=0.0, metadata={"execution": True})
    price_per_million_output_tokens: float = field(default=0.0, metadata={"execution": True})
    spend_ceiling: float | None = field(default=None, metadata={"execution": True})
    # Tokens of all runs on one answers folder, as they are billed; None: no ceiling.
    prompt_token_ceiling: int | None = field(default=None, metadata={"execution": True})
    output_token_ceiling: int | None = field(default=None, metadata={"execution": True})
    answers_folder: str | None = field(default=None, metadata={"execution": True})

    def __post_init__(self) -> None:
        for name, valid in (
            ("engine", ENGINES),
            ("answer_mode", ANSWER_MODES),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(valid)}"
                )
        self._check_engine()
        self._check_scores_only()
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

    @property
    def is_sampled(self) -> bool:
        """Returns whether an answer depends on its seed: a temperature above 0, or the server's."""
        if self.engine == "rule_judge":
            return False
        return bool(self.temperature) or "temperature" in self.request_fields

    def _check_engine(self) -> None:
        """Every engine has settings of its own."""
        given = [name for name in _NOT_FOR_RULE_JUDGE if getattr(self, name) not in (None, [])]
        if self.engine == "rule_judge":
            for name in given:
                models = f"endpoint, {' or '.join(LOCAL_ENGINES)}"
                raise ValueError(f"{name} is for engine={models}; engine=rule_judge takes none")
            if self.answer_mode != "full":
                raise ValueError(
                    f"answer_mode={self.answer_mode} needs a model; engine=rule_judge is none"
                )
            return
        is_local = self.engine in LOCAL_ENGINES
        for name in (*_ASKED_WITH, *(() if is_local else ("endpoints",))):
            if name not in given:
                raise ValueError(f"engine={self.engine} needs {name}")
        for name in _ENDPOINT_ONLY if is_local else _LOCAL_ONLY:
            if getattr(self, name) not in (None, [], {}, "auto"):
                only = "endpoint" if is_local else " or ".join(LOCAL_ENGINES)
                raise ValueError(f"{name} is for engine={only}, not for engine={self.engine}")
        is_greedy = self.answer_mode == "expected" or self.engine == "transformers"
        if is_greedy and self.temperature:
            setting = (
                "answer_mode=expected" if self.answer_mode == "expected" else "engine=transformers"
            )
            raise ValueError(f"temperature={self.temperature}: {setting} answers greedily, give 0")

    def _check_scores_only(self) -> None:
        """Digits alone come of guided decoding, and all of them or none can be read."""
        if self.answer_mode != "scores_only":
            return
        if self.engine not in _GUIDED_ENGINES:
            raise ValueError(
                "answer_mode=scores_only needs guided decoding, which engine="
                f"{' or '.join(_GUIDED_ENGINES)} has and engine={self.engine} has not. Serve the "
                "model with `mira serve`, or give answer_mode: expected"
            )
        if self.max_tokens is not None and self.max_tokens < MOST_TOKENS:
            raise ValueError(
                f"max_tokens={self.max_tokens} must be at least {MOST_TOKENS} with "
                "answer_mode=scores_only: so many tokens may its scores have"
            )

    def _check_ranges(self) -> None:
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization={self.gpu_memory_utilization} must be in (0, 1]"
            )
        for name in (
            *("max_tokens", "max_attempts", "max_in_flight", "timeout_seconds"),
            *("max_model_len", "batch_size", "tensor_parallel_size", "mode_agreement_records"),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be a number above 0")
        for name in (
            *("max_retries", "patience_seconds", "temperature", "max_failures"),
            *("prompt_token_ceiling", "output_token_ceiling", "retest_records"),
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be a number of at least 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be in (0, 1]")
        least = self.min_mode_agreement
        if least is not None and not -1 <= least <= 1:
            raise ValueError(f"min_mode_agreement={least} must be in [-1, 1]")

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


def check_has_model(judge: JudgeConfig, where: str) -> None:
    """Raises ValueError for a judge that is a model, and has none.

    `where` is the recipe's section that it comes from.
    """
    needed = {"endpoint": "model", "transformers": "model_path", "vllm": "model_path"}
    name = needed.get(judge.engine)
    if name is not None and getattr(judge, name) is None:
        raise ValueError(
            f"{where}: engine={judge.engine} needs {name}, or a section `distill` whose scorers "
            "are asked where neither model nor model_path is given"
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
