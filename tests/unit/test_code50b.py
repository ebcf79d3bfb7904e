"""recipes/code50b.yaml on the example cluster: the dry run of the whole graph is golden.

It is rewritten by `python tests/unit/test_code50b.py`.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from rich.console import Console

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.launchers.cluster import load_cluster
from mira_megatron.launchers.graph_table import print_graph
from mira_megatron.launchers.job_graph import job_graph
from mira_megatron.planning.gpu_hours import gpu_hours

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "submit_code50b.txt"
LABELS = ROOT / "recipes" / "find_rubric.yaml"


def code50b(folder: Path) -> Recipe:
    """The recipe, with stand-ins for what is on the user's machine."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text("{}")
    stand_ins = (f"teacher.tokenizer={tokenizer}", f"tokenize.tokenizer={tokenizer}")
    words = [*stand_ins, f"distill.base={folder}", f"run_folder={folder / 'run'}"]
    return load_recipe(ROOT / "recipes" / "code50b.yaml", words)


def dry_run(folder: Path) -> str:
    """Returns what `mira submit --dry-run` prints."""
    recipe = code50b(folder)
    cluster = load_cluster(ROOT / "launchers" / "clusters" / "example.yaml")
    jobs = job_graph(recipe, cluster)
    told = io.StringIO()
    console = Console(file=told, width=100)
    print_graph(console, jobs, gpu_hours(jobs, recipe, cluster.gpu), cluster)
    return "\n".join(line.rstrip() for line in told.getvalue().splitlines()) + "\n"


def test_dry_run_prints_the_whole_graph_with_gpu_hours(tmp_path: Path) -> None:
    assert dry_run(tmp_path) == GOLDEN.read_text(encoding="utf-8")


def test_sources_and_sampling_are_those_of_the_recipes_it_is_made_of(tmp_path: Path) -> None:
    recipe, labels = code50b(tmp_path), load_recipe(LABELS)
    same = ("sources", "ingest", "group", "discover", "anchor", "label")
    assert {name: recipe.values[name] for name in same} == {
        name: labels.values[name] for name in same
    }
    assert recipe.run_folder != labels.run_folder


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text(dry_run(Path(name)), encoding="utf-8")
