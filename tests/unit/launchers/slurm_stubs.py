"""Stand-ins for SLURM's commands: programs that write down what they were told and answer."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

_SBATCH = """\
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
told = folder / "sbatch.jsonl"
number = len(told.read_text().splitlines()) + 1 if told.exists() else 1
if number == int((folder / "fails_at").read_text()):
    sys.exit("sbatch: error: invalid account")
with told.open("a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
with (folder / "queue").open("a") as queue:
    queue.write(f"{{100 + number}}\\n")
print(f"{{100 + number}};here")
"""
_SQUEUE = """\
import pathlib, sys
path = pathlib.Path({folder!r}) / "queue"
print(path.read_text() if path.exists() else "", end="")
"""
_SRUN = """\
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
told = [os.getcwd(), sys.argv[1:], os.environ["MIRA_HEAD_NODE"]]
(folder / "srun.json").write_text(json.dumps(told))
exec((folder / "srun.py").read_text())
"""
_SCONTROL = """\
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / "scontrol.jsonl").open("a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
print("node-1\\nnode-2" if sys.argv[1] == "show" and sys.argv[2] == "hostnames" else
      (folder / "state").read_text())
"""


@dataclass(frozen=True, slots=True)
class SlurmStubs:
    """A folder of commands, and what they were told."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> SlurmStubs:
        folder.mkdir(parents=True)
        stubs = {"sbatch": _SBATCH, "squeue": _SQUEUE, "srun": _SRUN, "scontrol": _SCONTROL}
        for name, text in stubs.items():
            path = folder / name
            path.write_text(f"#!{sys.executable} -IS\n{text.format(folder=str(folder))}")
            path.chmod(0o755)
        (folder / "fails_at").write_text("0")
        (folder / "state").write_text("JobId=7 JobState=RUNNING Reason=None")
        (folder / "srun.py").write_text("")
        return cls(folder)

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment in which these are SLURM's commands."""
        return {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"}

    def lines(self, name: str) -> list[str]:
        """Returns what a command wrote down, none where it was never called."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []
