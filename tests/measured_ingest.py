"""Ingests the one source of a recipe and prints this process's peak memory in KiB."""

from __future__ import annotations

import sys
from pathlib import Path

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import stage_units
from mira_megatron.stage import Resources, Run, run_unit

if __name__ == "__main__":
    recipe = load_recipe(Path(sys.argv[1]))
    (unit,) = stage_units(recipe, "ingest")
    run_unit(unit, Run(folder=recipe.run_folder), Resources())
    # Not getrusage: its maximum begins with that of the process this one was forked from.
    sys.stdout.write(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
