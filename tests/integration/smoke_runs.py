"""`mira` in a process of its own, and runs of recipes/smoke.yaml to be killed and damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from forked_mira import Main, forked
from killed_at import main_killed

from mira_megatron import layout
from mira_megatron.cli import main
from mira_megatron.pipeline import STAGES as STAGE_MODULES

Case = TypeVar("Case")
Result = TypeVar("Result")

# recipes/smoke.yaml adopts nothing (test_adopted_corpus.py does), has no other method's scores, and
# compares no arms (test_train_from_base.py does), and has no benchmarks' data (unit/eval does).
_NOT_IN_SMOKE = ("adopt", "baseline", "held-out", "eval", "contamination", "ablation")
STAGES = tuple(stage for stage in STAGE_MODULES if stage not in _NOT_IN_SMOKE)
SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
# What turns the rule judge into an endpoint; nothing answers there.
OTHER_JUDGE = (
    "{engine: endpoint, model: other, temperature: 0, top_p: 1, "
    "max_tokens: 64, endpoints: ['http://127.0.0.1:9/v1']}"
)
OWN_SCORERS = "score={engine: transformers, max_tokens: 256, answer_mode: expected}"
ARM = "mira_group"
# 68 records in parts of 10, so that a run takes seconds and every source has several parts.
SMALL = (
    "sources.modules.max_records=24",
    'sources.questions.paths=["{stdlib}/[a-c]*.py"]',
    "sources.questions.max_records=24",
    'sources.traces.paths=["{stdlib}/[d-f]*.py", "{stdlib}/collections/*.py"]',
    "sources.traces.max_records=20",
    "ingest.records_per_part=10",
    "distill.training.train_iters=2",
    "distill.training.eval_interval=2",
    "distill.training.log_interval=1",
    "distill.training.save_interval=1",
    "tokenize.train_vocab_size=512",
    "tokenize.train_chars=60000",
    "tokenize.validation_max_tokens=1000",
    "blend.sequence_length=64",
    "midtrain.training.train_iters=2",
    "midtrain.training.warmup_iters=1",
    "instruct_sft.training.train_iters=2",
    "instruct_sft.training.save_interval=1",
    "instruct_sft.training.eval_interval=2",
    "instruct_sft.training.log_interval=1",
)
# Beside a run's units: who is at work, digests of raw files, and logs with times.
_NO_PART = (".locks", ".raw_digests", ".eval_cache", layout.TENSORBOARD, layout.COST)
# What a manifest says about when, where and by what it was made; no part depends on it.
_CIRCUMSTANCES = ("seconds", "code", "packages", "reused_from")
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that came to its end."""

    exit_code: int  # -9 where it was killed
    output: str  # stdout and stderr, as they were written


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A finished run of the small smoke recipe, and how often each stage called os.replace."""

    folder: Path
    num_calls: Mapping[str, int]


def ended(command: Sequence[object], **environment: str) -> Ended:
    """Runs a command, and ends what it started should it be killed."""
    with tempfile.TemporaryFile() as output:
        # A file, not a pipe: a child that outlives a killed command would hold a pipe open.
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            exit_code = process.wait(_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            exit_code = -signal.SIGKILL
        if exit_code < 0:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return Ended(exit_code, output.read().decode())


def killed_at(moment: str, call: int, *words: object) -> Ended:
    """Runs `mira` as killed_at.py does: ended before or after a call of os.replace, or never."""
    return _forked(main_killed, moment, call, *words, "--workers=1")


def mira(*words: object) -> Ended:
    """Runs `mira` with these words, in one process."""
    return _forked(main, *words, "--workers=1")


def mira_explain(*words: object) -> Ended:
    """Runs `mira explain` with these words."""
    return _forked(main, "explain", *words)


def mira_rubric(*words: object) -> Ended:
    """Runs `mira rubric` with these words."""
    return _forked(main, "rubric", *words)


def mira_tokens(*words: object) -> Ended:
    """Runs `mira tokens` with these words."""
    return _forked(main, "tokens", *words)


def _forked(function: Main, *words: object) -> Ended:
    exit_code, output = forked(function, [str(word) for word in words], _TIMEOUT_SECONDS)
    return Ended(exit_code, output.decode())


def smoke(command: str, run_folder: Path, *overrides: str) -> Ended:
    """Runs one command on the small smoke run in `run_folder`."""
    return mira(*smoke_words(command, run_folder, *overrides))


def smoke_words(command: str, run_folder: Path, *overrides: str, recipe: Path = SMOKE) -> list[str]:
    """Returns the words of a command on the small smoke run."""
    return [command, str(recipe), f"run_folder={run_folder}", *SMALL, *overrides]


def assert_done(result: Ended) -> None:
    """Fails with the command's output when it did not end well."""
    assert result.exit_code == 0, result.output


def assert_refused(result: Ended, *named: str, exit_code: int = 2) -> None:
    """Fails unless the command ended with a message for its user that holds every word."""
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    for word in named:
        assert word in result.output, f"{word!r} is not named in: {result.output}"


def copy_stages(run_folder: Path, folder: Path, stages: Iterable[str]) -> Path:
    """Returns a copy of a finished run that knows only the stages named."""
    shutil.copytree(run_folder, folder, symlinks=True)
    kept = set(stages)
    for manifest in sorted(folder.rglob("manifest.json")):
        if json.loads(manifest.read_bytes())["stage"] not in kept:
            shutil.rmtree(manifest.parent)
    if "ingest" not in kept:
        shutil.rmtree(folder / ".raw_digests")
    return folder


def before(stage: str) -> tuple[str, ...]:
    """Returns the stages that precede `stage`."""
    return STAGES[: STAGES.index(stage)]


def files(folder: Path) -> dict[str, Path]:
    """Returns every file and link of a run by its name in it, apart from those beside its units."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file())
        and path.relative_to(folder).parts[0] not in _NO_PART
    }


def content(path: Path) -> bytes:
    """Returns what must be equal in two runs; of a manifest, not when and where it was made."""
    if path.is_symlink():
        return str(path.readlink()).encode()
    if path.name != "manifest.json":
        return path.read_bytes()
    manifest = json.loads(path.read_bytes())
    for name in _CIRCUMSTANCES:
        del manifest[name]
    manifest["counts"]["totals"].pop("tokens_per_second", None)
    return json.dumps(manifest, sort_keys=True).encode()


def differences(expected: Path, found: Path) -> list[str]:
    """Returns the names of files that are not the same in two runs, or only in one of them."""
    left, right = files(expected), files(found)
    return [
        name
        for name in sorted(left.keys() | right.keys())
        if name not in left or name not in right or content(left[name]) != content(right[name])
    ]


def leftovers(run_folder: Path) -> list[str]:
    """Returns what no finished run may hold: intents, scratch folders, temporary files."""
    return [
        str(path.relative_to(run_folder))
        for path in sorted(run_folder.rglob("*"))
        if path.name in ("intent.json", ".scratch") or path.name.endswith((".tmp", ".linking"))
    ]


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Returns modification time and content of every file, so that a rewrite shows."""
    return {
        name: (
            path.lstat().st_mtime_ns,
            os.readlink(path).encode() if path.is_symlink() else path.read_bytes(),
        )
        for name, path in files(folder).items()
    }


def at_once(function: Callable[[Case], Result], cases: Iterable[Case]) -> list[Result]:
    """Returns the results in order; the function waits for processes, so threads will do."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, cases))
