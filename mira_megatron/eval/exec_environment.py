"""The Python that programs of models are run with, where their libraries are installed.

Benchmarks whose programs use libraries want an environment of their own, with old releases of them:
never the one that this runs in. It is bound read-only into the sandbox, so it must lie where a
sandbox does not put anything else, and be readable for the user that sandboxes are started as.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.eval.sandbox.contract import Job, Limits, Sandbox
from mira_megatron.eval.sandbox.interpreter import Interpreter
from mira_megatron.eval.verdicts import digest

_HIDDEN = ("/work", "/tmp", "/dev", "/proc")  # a sandbox has its own
_SEEN = ("/usr", "/bin", "/lib")
_PROBE = """
import importlib.metadata as metadata, json, sys
packages = sorted({f"{each.name}=={each.version}" for each in metadata.distributions()})
print(json.dumps([sys.version, sys.prefix, sys.base_prefix, packages]))
"""
# Each import in a process of its own: some end the process, some spoil the next one.
_IMPORTS = """
import json, os, subprocess, sys
failures = {}
for name in json.load(sys.stdin):
    ended = subprocess.run([sys.executable, "-B", "-c", f"import {name}"], capture_output=True)
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").strip().splitlines() or [""]
        failures[name] = f"exit code {ended.returncode}: {lines[-1]}"
os.write(int(os.environ["MIRA_RESULTS_FD"]), json.dumps(failures).encode())
"""
_GIB = 1 << 30
_SECONDS_PER_IMPORT = 60
_PROBE_SECONDS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecEnvironment:
    """An interpreter, and what is installed for it."""

    interpreter: Interpreter
    version: str  # sys.version
    packages: tuple[str, ...]  # name==version, sorted

    @property
    def digest(self) -> str:
        """What a kept verdict depends on: another library is another verdict."""
        return digest(self.version, *self.packages)


def exec_environment(python: Path | None = None) -> ExecEnvironment:
    """Returns the environment of an interpreter; None: the one that this runs on.

    Raises ValueError or FileNotFoundError where it does not start or no sandbox can see it.
    """
    path = python if python is not None else Path(sys.executable)
    if not path.is_absolute() or not path.exists():
        raise FileNotFoundError(f"python={path} is not there; name an interpreter by its full path")
    ended = subprocess.run(
        [path, "-B", "-c", _PROBE],
        capture_output=True,
        timeout=_PROBE_SECONDS,
        check=False,
        cwd="/",
    )
    if ended.returncode != 0:
        said = ended.stderr.decode(errors="replace").strip()[-200:]
        raise ValueError(f"python={path} does not start: {said}")
    version, prefix, base_prefix, packages = json.loads(ended.stdout)
    folders = dict.fromkeys(Path(each) for each in (prefix, base_prefix, str(path.parent.parent)))
    for folder in folders:
        if any(folder.is_relative_to(hidden) for hidden in _HIDDEN):
            raise ValueError(
                f"python={path} needs {folder}, and a sandbox has its own {', '.join(_HIDDEN)}: "
                "make the environment elsewhere, under /opt or a home folder, and name its python"
            )
    shown = tuple(
        folder
        for folder in folders
        if not any(folder == Path(seen) or folder.is_relative_to(seen) for seen in _SEEN)
        and folder != Path("/")
    )
    return ExecEnvironment(
        interpreter=Interpreter(str(path), shown), version=version, packages=tuple(packages)
    )


def failing_imports(
    sandbox: Sandbox, environment: ExecEnvironment, names: Sequence[str]
) -> Mapping[str, str]:
    """Returns, for each module that cannot be imported inside the sandbox, what Python says.

    Raises ValueError where the environment does not start there at all.
    """
    unusable = [name for name in names if not all(map(str.isidentifier, name.split(".")))]
    if unusable:
        raise ValueError(f"{unusable[0]!r} is no module's name")
    job = Job(
        argv=(environment.interpreter.path, "-B", "-c", _IMPORTS),
        stdin=json.dumps(list(names)).encode(),
        limits=Limits(
            wall_seconds=_PROBE_SECONDS + _SECONDS_PER_IMPORT * len(names),
            cpu_seconds=_SECONDS_PER_IMPORT,
            memory_bytes=30 * _GIB,
            output_bytes=1 << 20,
            num_processes=256,
            file_bytes=_GIB // 4,
            num_open_files=1024,
        ),
        read_only=environment.interpreter.read_only,
    )
    outcome = sandbox.run(job)
    try:
        return {str(name): str(said)[:160] for name, said in json.loads(outcome.results).items()}
    except ValueError as error:
        said = ascii(outcome.stderr[-200:].decode(errors="replace"))
        raise ValueError(
            f"{environment.interpreter.path} does not run in the sandbox: {said}"
        ) from error
