"""The vLLM servers that answer for a group's scorer.

published    one server over 8 GPUs, as the released scorers' cards have it
throughput   one server per GPU: a model with 3B active parameters wastes eight on one request

The command is built as a list of words and never passes through a shell.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe, nearest
from mira_megatron.distill.scorer_card import EXPORT, read_card
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.scoring.distilled import is_distilled
from mira_megatron.scoring.scorers import scorer_judge

logger = logging.getLogger(__name__)

PROFILES = ("throughput", "published")
_API_SERVER = "vllm.entrypoints.openai.api_server"
# Cards of the released scorers (whw06/MIRA-*), on H200 141 GB.
_PUBLISHED = {
    "--tensor-parallel-size": "8",
    "--dtype": "bfloat16",
    "--max-model-len": "65536",
    "--max-num-batched-tokens": "131072",
    "--gpu-memory-utilization": "0.9",
}
_PUBLISHED_GPUS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """What is to be served."""

    model: str  # a folder, or a name that vLLM looks up
    served_model_name: str
    max_model_len: int | None  # None: the model's own


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """How it is to be served."""

    profile: str = "throughput"  # one of PROFILES
    gpus: int = 1  # 0: on the CPU
    host: str = "127.0.0.1"
    port: int = 8000  # of the first server; the others have the next ones
    python: str = sys.executable  # of the environment that has vLLM
    more: tuple[str, ...] = ()  # words for vLLM, after ours

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"--profile {self.profile!r} must be one of {', '.join(PROFILES)}")
        if self.gpus < 0:
            raise ValueError(f"--gpus {self.gpus} must be at least 0")
        if self.profile == "published" and self.gpus != _PUBLISHED_GPUS:
            raise ValueError(
                f"--gpus {self.gpus}: profile published spreads one model over "
                f"{_PUBLISHED_GPUS} GPUs. Give --gpus {_PUBLISHED_GPUS}, or --profile throughput"
            )
        if not 0 < self.port <= 65535 - max(self.gpus, 1):
            raise ValueError(f"--port {self.port}: no room for a port per server up to 65535")


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One process to start."""

    words: tuple[str, ...]
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """Returns the command as one would type it."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join((*assignments, shlex.join(self.words)))


def served_model(recipe: Recipe, group: str) -> ServedModel:
    """Returns the scorer of a group: its own, distilled one, or the model that the recipe names.

    Raises ValueError for an unknown group and for a judge that is no model, FileNotFoundError
    where the scorer has not been distilled yet.
    """
    groups = source_groups(recipe)
    if group not in groups:
        raise ValueError(f"--group {group!r}: no such source group.{nearest(group, groups)}")
    judge = scorer_judge(recipe, group)
    if judge.engine == "rule_judge":
        raise ValueError(
            f"{recipe.path}: score.engine=rule_judge is no model. Distil a scorer (with a section "
            "`distill`), or run `mira judge-server`"
        )
    if is_distilled(recipe, judge):
        folder = recipe.run_folder / layout.scorer(recipe.rubric, group)
        card = read_card(folder)
        return ServedModel(
            model=str(folder / EXPORT),
            served_model_name=card.served_model_name,
            max_model_len=card.max_model_len,
        )
    path = None if judge.model_path is None else str(recipe.path_of(judge.model_path))
    name = judge.model or Path(str(path)).name
    return ServedModel(
        model=path or name, served_model_name=name, max_model_len=judge.max_model_len
    )


def servers(model: ServedModel, options: ServeOptions) -> list[Server]:
    """Returns the processes that serve a model."""
    if options.profile == "published":
        return [_server(model, options, options.port, _PUBLISHED, {})]
    own = {} if model.max_model_len is None else {"--max-model-len": str(model.max_model_len)}
    if options.gpus == 0:
        on_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB
        return [_server(model, options, options.port, own, on_cpu)]
    return [
        _server(model, options, options.port + gpu, own, {"CUDA_VISIBLE_DEVICES": str(gpu)})
        for gpu in range(options.gpus)
    ]


def _server(
    model: ServedModel,
    options: ServeOptions,
    port: int,
    settings: Mapping[str, str],
    environment: Mapping[str, str],
) -> Server:
    given = {
        "--model": model.model,
        "--served-model-name": model.served_model_name,
        "--host": options.host,
        "--port": str(port),
        **settings,
    }
    words = [word for pair in given.items() for word in pair]
    return Server(
        words=(options.python, "-m", _API_SERVER, *words, *options.more),
        url=f"http://{options.host}:{port}/v1",
        environment=environment,
    )


def run_servers(to_run: Sequence[Server]) -> int:
    """Runs the servers until one of them ends, ends the others, and returns its exit code."""
    started = [
        subprocess.Popen(server.words, env={**os.environ, **server.environment})
        for server in to_run
    ]
    try:
        while True:
            for process in started:
                try:
                    return process.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
