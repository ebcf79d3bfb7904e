"""Whether the benchmarks of a recipe can be asked, before anything is trained for them.

Every command plans the whole recipe, and some benchmarks are gigabytes: of one that was looked at
and whose files stand still, as raw_digests.py has it, the run folder keeps a note.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.eval_config import SECTION, EvalConfig, asked_config
from mira_megatron.eval.generation.planned import planned_answers
from mira_megatron.eval.suite import Entry, Suite, data_files, open_benchmark
from mira_megatron.shards import json_digest


def check_data(recipe: Recipe, config: EvalConfig, suite: Suite, entries: Sequence[Entry]) -> None:
    """Raises what refused_data() returns of the first benchmark that cannot be asked.

    Databases beside a benchmark's files are not looked for again; the evaluation itself does.
    """
    path = recipe.run_folder / ".raw_digests" / "eval_looked_at.json"
    noted = orjson.loads(path.read_bytes()) if path.is_file() else {}
    found = dict(noted)
    for entry in entries:
        stamp = data_stamp(config, suite, entry)
        if stamp is None or stamp != noted.get(entry.name):
            error = refused_data(recipe, config, suite, entry)
            if error is not None:
                raise error
            found[entry.name] = stamp
    # A command that only looks makes no run folder.
    if found != noted and recipe.run_folder.is_dir():
        write_json(path, found)


def data_stamp(config: EvalConfig, suite: Suite, entry: Entry) -> str | None:
    """Returns a digest of how a benchmark is asked and of its files' sizes and times.

    None where a file is missing.
    """
    try:
        files = [(str(path), path.stat()) for path in data_files(entry)]
    except (ValueError, OSError):
        return None
    stamps = [[path, status.st_size, status.st_mtime_ns] for path, status in files]
    return json_digest([asked_config(config, suite, [entry]), stamps])


def refused_data(
    recipe: Recipe, config: EvalConfig, suite: Suite, entry: Entry
) -> ValueError | FileNotFoundError | None:
    """Returns why a benchmark's data cannot be asked, naming the setting; None where they can."""
    try:
        benchmark = open_benchmark(entry, layout.eval_cache(recipe.run_folder))
        planned = planned_answers(
            benchmark, suite.sampling_of(entry), Style(config.style), limit=config.limit
        )
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            return None  # this stage may have an environment of its own on a cluster
        where = f"{recipe.path}: {SECTION}"
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        return kind(
            f"{error} ({where}: suite {suite.path}). In a recipe the folder is "
            f"{SECTION}.data_folder; {SECTION}.benchmarks leaves a benchmark out"
        )
    if not planned:
        return ValueError(
            f"{entry.file}: no tasks, so benchmark {entry.name} has nothing to ask. Copy the "
            f"file anew, or leave the benchmark out of {SECTION}.benchmarks"
        )
    return None
