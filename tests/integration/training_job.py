"""`mira job` for a training that is played, since no real one runs without GPUs.

Told a folder and how to behave, and then what `mira job` is told. The ranks are real: they find
each other by torch.distributed, and add up at each of five steps.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from mira_megatron.launchers.job_place import place_from
from mira_megatron.launchers.job_runner import run_job
from mira_megatron.training.training_commands import TrainingCommands

TRAINING = """
import os, pathlib, signal, sys, time
import torch, torch.distributed as ranks
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
ranks.init_process_group("gloo")
rank, attempt = ranks.get_rank(), int(os.environ.get("SLURM_RESTART_COUNT", 0))
saved = folder / "saved"  # the steps that are done
step = int(saved.read_text()) if saved.exists() else 0
(folder / f"ran-{attempt}-{rank}").write_text(f"{os.environ['SLURM_NODEID']} {step}")
while step < 5:
    if rank == 3 and (behaviour == "always fails" or (behaviour, step, attempt) == ("fails", 2, 0)):
        sys.exit(9)
    seen = torch.tensor([1.0, float(bool(told))])
    ranks.all_reduce(seen)
    assert seen[0] == 4
    if seen[1]:
        sys.exit(0)  # as Bridge does when any rank was told to end
    if behaviour == "waits" and step == 2 and attempt == 0:
        (folder / f"waits-{rank}").touch()
        time.sleep(0.02)
        continue
    step += 1
    if rank == 0:
        saved.write_text(str(step))
if rank == 0:
    (folder / "notes.jsonl").write_text('{"text": "A note."}\\n')
"""


def training(folder: Path, behaviour: str) -> TrainingCommands:
    """Returns a training on two nodes that makes the notes of the recipe in a folder."""
    note = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write(sys.argv[2] + ' ')"
    noted = (sys.executable, "-c", note, str(folder / "order"))
    return TrainingCommands(
        name="notes",
        num_nodes=2,
        gpus_per_node=8,
        prepare=((*noted, "prepared"),),
        train=(str(folder / "train.py"), str(folder), behaviour),
        finish=((*noted, "finished"),),
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    played = training(Path(sys.argv[1]), sys.argv[2])
    *_, job = sys.argv
    sys.exit(run_job(Path(job), place_from(os.environ), trainings=lambda *_: [played]))
