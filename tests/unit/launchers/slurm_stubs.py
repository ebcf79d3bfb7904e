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
with (folder / "sbatch_environment").open("a") as out:
    out.write(" ".join(name for name in os.environ if name.startswith(("SBATCH_", "SLURM_"))))
with (folder / "queue").open("a") as queue:
    queue.write(f"{{100 + number}}|PENDING|(null)|{{sys.argv[-1]}}\\n")
print(f"{{100 + number}};here")
"""
_SQUEUE = """\
import os, pathlib, sys
path = pathlib.Path({folder!r}) / "queue"
for row in path.read_text().splitlines() if path.exists() else ():
    if os.environ.get("SQUEUE_STATES", row.split("|")[1]) == row.split("|")[1]:
        print(row)
"""
_SCANCEL = """\
import pathlib, sys
path = pathlib.Path({folder!r}) / "queue"
left = [row for row in path.read_text().splitlines() if row.split("|")[0] not in sys.argv]
path.write_text("".join(row + "\\n" for row in left))
with path.with_name("scancel").open("a") as out:
    out.write(" ".join(sys.argv[1:]) + "\\n")
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
        stubs = {
            **{"sbatch": _SBATCH, "squeue": _SQUEUE, "scancel": _SCANCEL},
            **{"srun": _SRUN, "scontrol": _SCONTROL},
        }
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

    def queue(self) -> dict[str, str]:
        """Returns the state of every job in the queue, by its number."""
        rows = [line.split("|") for line in self.lines("queue")]
        return {row[0]: row[1] for row in rows}

    def change_queue(self, *gone: str, running: tuple[str, ...] = ()) -> None:
        """Takes jobs out of the queue, and starts others."""
        rows = [line.split("|") for line in self.lines("queue")]
        kept = [
            [row[0], "RUNNING" if row[0] in running else row[1], *row[2:]]
            for row in rows
            if row[0] not in gone
        ]
        (self.folder / "queue").write_text("".join("|".join(row) + "\n" for row in kept))

    def lines(self, name: str) -> list[str]:
        """Returns what a command wrote down, none where it was never called."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []
