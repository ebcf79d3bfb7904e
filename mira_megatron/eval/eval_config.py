"""The section `eval` of a recipe: which benchmarks every model answers, how, and who runs it.

eval:
  suite: ../eval/suites/mira9.yaml   # as `mira evaluate` reads it
  style: chat                        # completion: a base model goes on with a text
  engine: vllm                       # vllm or transformers: loaded here; endpoint: served
  benchmarks: [mbpp]                 # null: all of the suite
  limit: null                        # the first tasks of each benchmark alone
  data_folder: null                  # null: the suite's own
  min_isolation: 3                   # of the sandbox, as `mira grade` has it
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mira_megatron.config import Recipe
from mira_megatron.endpoints import base_url, check_key_name
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.suite import Entry, Suite, load_suite
from mira_megatron.scoring.judge_config import DTYPES, LOCAL_ENGINES

SECTION = "eval"
ENDPOINT = "endpoint"
ENGINES = (*LOCAL_ENGINES, ENDPOINT)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """A suite -> answers and verdicts of every trained model."""

    suite: str
    style: str  # one of Style
    engine: str  # one of ENGINES
    benchmarks: list[str] | None = None
    limit: int | None = None
    data_folder: str | None = field(default=None, metadata={"execution": True})
    # A machine with a weaker sandbox goes on from the answers that are there.
    min_isolation: int = field(default=3, metadata={"execution": True})
    # engine=transformers or vllm only, as in the section `score`:
    dtype: str = "auto"
    max_model_len: int | None = None  # tokens of prompt and answer; None: the model's own
    batch_size: int = field(default=32, metadata={"execution": True})  # transformers
    num_threads: int | None = None  # transformers; of the CPU, None: as many as torch takes
    gpu_memory_utilization: float = field(default=0.9, metadata={"execution": True})  # vllm
    tensor_parallel_size: int = field(default=1, metadata={"execution": True})  # vllm
    # engine=endpoint only; the model is called by the name of its unit there:
    endpoints: list[str] = field(default_factory=list, metadata={"execution": True})
    api_key_env: str | None = field(default=None, metadata={"execution": True})
    max_in_flight: int = field(default=64, metadata={"execution": True})
    timeout_seconds: float = field(default=600.0, metadata={"execution": True})

    def __post_init__(self) -> None:
        for name, valid in (("style", tuple(Style)), ("engine", ENGINES), ("dtype", DTYPES)):
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(valid)}"
                )
        if self.benchmarks is not None and not self.benchmarks:
            raise ValueError("benchmarks=[] must name at least one, or be null for all")
        for name in (
            *("limit", "max_model_len", "batch_size", "num_threads", "tensor_parallel_size"),
            *("max_in_flight", "timeout_seconds"),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be a number above 0")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization={self.gpu_memory_utilization} must be in (0, 1]"
            )
        if self.min_isolation < 1:
            raise ValueError(f"min_isolation={self.min_isolation} must be at least 1")
        self._check_endpoints()

    def _check_endpoints(self) -> None:
        if (self.engine == ENDPOINT) != bool(self.endpoints):
            raise ValueError(
                f"engine={self.engine} with endpoints={self.endpoints}: engine=endpoint asks "
                "endpoints, and no other engine does"
            )
        for endpoint in self.endpoints:
            base_url(endpoint)
        check_key_name(self.api_key_env)


def eval_config(recipe: Recipe) -> EvalConfig:
    """Returns the section; ValueError for a setting that is wrong."""
    return recipe.section(SECTION, EvalConfig)


def read_suite(recipe: Recipe, config: EvalConfig) -> tuple[Suite, list[Entry]]:
    """Returns the suite and the benchmarks of it that are asked.

    Raises FileNotFoundError without the suite, ValueError for what is wrong in it and for a
    benchmark that it has not.
    """
    path = suite_path(recipe, config)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file, named by {recipe.path}: {SECTION}.suite; give the path of a "
            "suite such as eval/suites/mira9.yaml, from the recipe's own folder"
        )
    suite = load_suite(path, data_folder(recipe, config))
    names = dict.fromkeys(config.benchmarks or suite.entries)
    return suite, [suite.entry(name) for name in names]


def suite_path(recipe: Recipe, config: EvalConfig) -> Path:
    """Returns where the suite lies."""
    return recipe.path_of(config.suite)


def data_folder(recipe: Recipe, config: EvalConfig) -> Path | None:
    """Returns where the benchmarks' data lie, None where the suite says it."""
    return None if config.data_folder is None else recipe.path_of(config.data_folder)


def asked_config(config: EvalConfig, suite: Suite, entries: list[Entry]) -> dict[str, Any]:
    """Returns all of the section and the suite that decides answers and verdicts."""
    return {
        "engine": config.engine,
        "style": config.style,
        "limit": config.limit,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "num_threads": config.num_threads,
        "benchmarks": {
            entry.name: {
                "kind": entry.kind,
                "category": entry.category,
                "protocol": entry.protocol,
                "language": entry.language,
                "options": dict(entry.options),
                "sampling": asdict(suite.sampling_of(entry)),
            }
            for entry in entries
        },
    }
