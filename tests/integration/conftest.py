from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fake_teacher import serving
from gated_scorer import GatedScorer
from shared_smoke import smoke_settings
from slurm_cluster import SlurmCluster, running_slurm
from smoke_runs import SMOKE, STAGES, Undisturbed, assert_done, killed_at, smoke_words

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run that every drill is compared with, made stage by stage."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    num_calls = {}
    for stage in STAGES:
        done = killed_at("never", 0, *smoke_words(stage, folder))
        assert_done(done)
        num_calls[stage] = int(done.output.split()[-1])
    return Undisturbed(folder, num_calls)


@pytest.fixture(scope="session")
def finished_run(undisturbed: Undisturbed) -> Path:
    """The folder of the undisturbed run; tests work on copies of it."""
    return undisturbed.folder


@pytest.fixture
def gated_scorer() -> Iterator[GatedScorer]:
    """A scorer that answers; what is asked once its gate is closed waits."""
    scorer = GatedScorer()
    scorer.gate.set()
    with serving(scorer):
        yield scorer


@pytest.fixture(scope="session")
def anchored_smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a smoke run that has everything scoring needs; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("anchored") / "run"
    recipe = load_recipe(SMOKE, smoke_settings(folder))
    run_stages(recipe, ["ingest", "group", "discover", "anchor"], Resources())
    return folder


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A real SLURM that takes jobs, with four CPUs."""
    with running_slurm(num_cpus=4) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def own_mounts(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The words before a command that may mount; as root, or as root of a user namespace."""
    folder = tmp_path_factory.mktemp("mount")
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        try:
            tried = [*words, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
            subprocess.run(tried, check=True, capture_output=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            continue
        return words
    message = "no small disk here: neither `unshare -m` nor `unshare -rm` may mount a tmpfs"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
