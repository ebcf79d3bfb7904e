from __future__ import annotations

from pathlib import Path
from typing import Any

from preflight_recipes import about, subject

from mira_megatron.doctor.finding import ERROR, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.stage_environments import check_environments, stage_versions
from mira_megatron.doctor.training_checks import check_trainings


def _environment(folder: Path, **releases: str) -> dict[str, Any]:
    """Makes an environment's folder with these packages; returns what a cluster says of it."""
    site_packages = folder / "venv" / "lib" / "python3.12" / "site-packages"
    for name, release in releases.items():
        info = site_packages / f"{name}-{release}.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"
        (info / "METADATA").write_text(metadata)
    program = folder / "venv" / "bin" / "mira"
    program.parent.mkdir(parents=True)
    program.touch()
    return {"commands": {"default": [str(program)]}}


def _findings(folder: Path, cluster: dict[str, Any] | None) -> list[Finding]:
    return check_environments(subject(folder, cluster))


def test_environment_with_all_that_is_needed_is_silent(tmp_path: Path) -> None:
    cluster = _environment(tmp_path, megatron_bridge="0.3.1", megatron_core="0.16.1")
    assert _findings(tmp_path, cluster) == []
    looked_at = subject(tmp_path, cluster)
    versions = stage_versions(looked_at.cluster, "midtrain")
    assert versions is not None
    assert (versions["megatron-bridge"], versions["vllm"]) == ("0.3.1", None)


def test_environment_without_bridge_is_found(tmp_path: Path) -> None:
    cluster = _environment(tmp_path, megatron_core="0.16.1")
    (line,) = about(_findings(tmp_path, cluster), ERROR)
    assert line.startswith("stage midtrain: environment: megatron-bridge is not installed")


def test_environment_whose_bridge_and_transformers_do_not_fit_is_found(tmp_path: Path) -> None:
    releases = {"megatron_bridge": "0.3.1", "megatron_core": "0.16.1", "transformers": "5.0"}
    findings = _findings(tmp_path, _environment(tmp_path, **releases))
    assert about(findings, ERROR, "needs transformers < 5")


def test_environment_with_a_bridge_too_old_for_the_model_is_found(tmp_path: Path) -> None:
    cluster = _environment(tmp_path, megatron_bridge="0.2.0", megatron_core="0.15.0")
    findings = check_trainings(subject(tmp_path, cluster))
    assert about(findings, ERROR, "needs Megatron-Bridge >= 0.3, and 0.2.0 is installed")


def test_program_that_is_not_there_is_found(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {"commands": {"default": ["/gone/bin/mira"]}})
    (line,) = about(findings, ERROR, "/gone/bin/mira: no such program")
    assert "to run ingest, " in line


def test_container_and_bare_word_are_not_known_before_a_job_runs(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {})
    assert about(findings, UNKNOWN, "megatron-bridge", "`mira` of a node")
    image = {"container_runtime": "pyxis", "containers": {"default": "nemo:25.11"}}
    assert about(_findings(tmp_path, image), UNKNOWN, "megatron-bridge", "in nemo:25.11")


def test_without_a_cluster_it_is_this_environment(tmp_path: Path) -> None:
    assert about(_findings(tmp_path, None), WARNING, "megatron-bridge is not installed")
