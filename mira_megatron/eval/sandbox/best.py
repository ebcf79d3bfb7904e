"""The best sandbox of this machine, by what was measured in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mira_megatron.eval.sandbox.apptainer import ApptainerSandbox, missing_apptainer
from mira_megatron.eval.sandbox.bubblewrap import BubblewrapSandbox, missing_bubblewrap
from mira_megatron.eval.sandbox.contract import DEFAULT_MIN_LEVEL, Sandbox, SandboxError
from mira_megatron.eval.sandbox.escapes import Escape, measured_level, try_escapes
from mira_megatron.eval.sandbox.limits_only import LimitsOnlySandbox

_WAY_OUT = (
    "Install bubblewrap 0.8 or later (Debian: apt-get install bubblewrap) and allow user "
    "namespaces (sysctl user.max_user_namespaces above 0; in Docker, --security-opt "
    "seccomp=unconfined), or name an Apptainer image. `mira doctor --eval` shows what is stopped"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A sandbox that was tried here."""

    name: str
    level: int  # 0: it cannot be used, or holds nothing
    problem: str  # why it cannot be used; empty where it can
    escapes: tuple[Escape, ...] = ()
    sandbox: Sandbox | None = None

    def said(self) -> str:
        """Returns one line: the level, and what keeps it from a higher one."""
        if self.problem:
            return f"{self.name}: {self.problem}"
        open_ways = [escape.name for escape in self.escapes if not escape.is_stopped]
        return f"{self.name}: level {self.level}" + (
            f", does not stop {', '.join(open_ways)}" if open_ways else ""
        )


def best_sandbox(min_level: int = DEFAULT_MIN_LEVEL, image: Path | None = None) -> Sandbox:
    """Returns the first of bubblewrap, Apptainer and limits only that reaches `min_level` here.

    `image` is what Apptainer runs jobs in. Raises ValueError where none reaches the level; it says
    what was tried, what failed, and the way out.
    """
    attempts: tuple[Callable[[], Candidate], ...] = (
        _bubblewrap,
        lambda: _apptainer(image),
        _limits_only,
    )
    tried = []
    for attempt in attempts:
        candidate = attempt()
        if candidate.sandbox is not None and candidate.level >= min_level:
            return candidate.sandbox
        tried.append(candidate.said())
    raise ValueError(f"no sandbox of level {min_level} here. {'; '.join(tried)}. {_WAY_OUT}")


def candidates(image: Path | None = None) -> list[Candidate]:
    """Returns every sandbox, best first, with what was measured in it."""
    return [_bubblewrap(), _apptainer(image), _limits_only()]


@cache
def _bubblewrap() -> Candidate:
    return _measured("bubblewrap", missing_bubblewrap(), 3, BubblewrapSandbox)


@cache
def _apptainer(image: Path | None) -> Candidate:
    def build(level: int) -> Sandbox:
        assert image is not None
        return ApptainerSandbox(image, level)

    return _measured("apptainer", missing_apptainer(image), 4, build)


@cache
def _limits_only() -> Candidate:
    return _measured("limits only", None, 1, LimitsOnlySandbox)


def _measured(
    name: str, problem: str | None, promised: int, build: Callable[[int], Sandbox]
) -> Candidate:
    """Returns the sandbox at the level that it holds, which is in each of its outcomes."""
    if problem is not None:
        return Candidate(name=name, level=0, problem=problem)
    try:
        escapes = try_escapes(build(promised))
    except SandboxError as error:
        return Candidate(name=name, level=0, problem=str(error))
    level = measured_level(promised, escapes)
    return Candidate(
        name=name, level=level, problem="", escapes=tuple(escapes), sandbox=build(level)
    )
