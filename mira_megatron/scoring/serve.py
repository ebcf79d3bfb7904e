"""The vLLM servers that answer for a group's scorer.

published    one server over 8 GPUs, as the released scorers' cards have it
throughput   one server per GPU: a model with 3B active parameters wastes eight on one request

The command is built as a list of words and never passes through a shell.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from mira_megatron import layout
from mira_megatron.config import Recipe, nearest
from mira_megatron.distill.scorer_card import EXPORT, read_card
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.launchers.end_with_parent import end_with_parent
from mira_megatron.manifest import read_manifest
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
# Our requests have seeds, and vLLM 0.32 on a CPU dies of one that is sampled with a seed where it
# reads a prompt in more than one step.
_CPU_WORDS = ("--no-enable-chunked-prefill",)
_CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.2
_STOP_SECONDS = 30.0  # for a server to end its engine itself


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
    gpu_ids: tuple[str, ...] = ()  # those that may be used, as CUDA names them; none: 0, 1, ...
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
        if self.gpu_ids and len(self.gpu_ids) < self.gpus:
            raise ValueError(
                f"--gpus {self.gpus}: CUDA_VISIBLE_DEVICES={','.join(self.gpu_ids)} has "
                f"{len(self.gpu_ids)}. Give --gpus {len(self.gpu_ids)}, or make more visible"
            )
        if not 0 < self.port <= 65536 - max(self.gpus, 1):
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
            f"{recipe.path}: score.engine=rule_judge is no model. For a scorer of your own give a "
            "section `distill` and score.engine=transformers, vllm or endpoint; the rule judge has "
            "`mira judge-server`"
        )
    if is_distilled(recipe, judge):
        folder = recipe.run_folder / layout.scorer(recipe.rubric, group)
        card = read_card(folder)
        if read_manifest(folder) is None:
            raise FileNotFoundError(
                f"{folder}: this scorer is not finished. Run `mira distill {recipe.path}`"
            )
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
    own = {} if model.max_model_len is None else {"--max-model-len": str(model.max_model_len)}
    if options.profile == "published":
        return [_server(model, options, options.port, {**_PUBLISHED, **own}, {})]
    if options.gpus == 0:
        on_cpu = replace(options, more=(*_CPU_WORDS, *options.more))
        return [_server(model, on_cpu, options.port, own, _CPU_ENVIRONMENT)]
    gpu_ids = options.gpu_ids or tuple(map(str, range(options.gpus)))
    return [
        _server(model, options, options.port + number, own, {"CUDA_VISIBLE_DEVICES": gpu_id})
        for number, gpu_id in enumerate(gpu_ids[: options.gpus])
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
    """Runs the servers until one of them ends or this process is told to end, then ends them all.

    Returns the exit code of the one that ended, and 1 in place of 0: no server is meant to end, and
    vLLM's says 0 when its engine has died. Where a signal ended it, or was sent to this process,
    128 and the signal's number, as a shell has it. Raises FileNotFoundError for a program that is
    not there. Only the main thread may call this: signals are received in no other.
    """
    started: list[subprocess.Popen[bytes]] = []
    with _received_signals() as received:
        try:
            for server in to_run:
                started.append(_start(server))
                logger.info("a server for %s is starting", server.url)
            return _first_end(to_run, started, received)
        finally:
            _end(started, received)


@contextmanager
def _received_signals() -> Iterator[list[int]]:
    """Yields the numbers of the signals to end that came so far; none of them interrupts."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    # One that is ignored stays so: under nohup a closed terminal is no reason to end.
    heeded = [each for each in _STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, receive) for each in heeded}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _start(server: Server) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            server.words,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **server.environment},
            start_new_session=True,  # a process group, with the engine that vLLM starts
            preexec_fn=end_with_parent,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise FileNotFoundError(
            f"--python {server.words[0]}: cannot be run ({error.strerror}). Give the Python of the "
            "environment that has vLLM"
        ) from error


def _first_end(
    to_run: Sequence[Server], started: Sequence[subprocess.Popen[bytes]], received: Sequence[int]
) -> int:
    """Returns the exit code once a server has ended, or a signal to end has come."""
    while not received:
        for server, process in zip(to_run, started, strict=True):
            code = process.poll()
            if code is not None:
                logger.error(
                    "the server for %s ended with exit code %s; its own words are above",
                    server.url,
                    code,
                )
                return code or 1 if code >= 0 else 128 - code
        time.sleep(_POLL_SECONDS)
    return 128 + received[0]


def _end(started: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> None:
    """Ends the servers and all they started: politely, and for certain when time is up.

    Another signal while they end is taken as: at once.
    """
    for process in started:
        if process.poll() is None:
            process.terminate()
    deadline, num_received = time.monotonic() + _STOP_SECONDS, len(received)
    while any(process.poll() is None for process in started):
        if time.monotonic() > deadline or len(received) > num_received:
            break
        time.sleep(_POLL_SECONDS)
    for process in started:
        with suppress(ProcessLookupError):  # nothing is left of the group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
