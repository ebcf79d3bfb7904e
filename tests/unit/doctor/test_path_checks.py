from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from preflight_recipes import about, subject

from mira_megatron.doctor.finding import ERROR, WARNING, Finding
from mira_megatron.doctor.path_checks import check_paths, source_files

IMAGE = {"containers": {"default": "images/mira:1"}}


def _findings(folder: Path, cluster: dict[str, Any] | None = None, **more: Any) -> list[Finding]:
    looked_at = subject(folder, cluster, **more)
    return check_paths(looked_at, source_files(looked_at))


def _mounted(folder: Path, mounts: list[str], runtime: str = "pyxis") -> list[Finding]:
    return _findings(folder, {**IMAGE, "container_runtime": runtime, "mounts": mounts})


def test_paths_that_are_there_are_silent(tmp_path: Path) -> None:
    assert _findings(tmp_path, {}) == []
    assert _mounted(tmp_path, [str(tmp_path)]) == []
    assert _mounted(tmp_path, [f"{tmp_path}:{tmp_path}:rw"]) == []


def test_missing_base_and_tokenizer_are_found_by_setting(tmp_path: Path) -> None:
    midtrain = {
        "trainer": "bridge",
        "config": "qwen25_coder_14b_midtrain_8gpu_h200_bf16_config",
        "base": "gone",
    }
    findings = _findings(tmp_path, midtrain=midtrain)
    (line,) = about(findings, ERROR)
    assert line.startswith(f"{tmp_path / 'recipe.yaml'}: midtrain.base: {tmp_path / 'gone'}: no ")


def test_source_without_files_is_found(tmp_path: Path) -> None:
    source = {"format": "jsonl", "family": "text", "fields": {"text": "text"}}
    findings = _findings(tmp_path, sources={"web": {**source, "paths": ["web/*.jsonl"]}})
    assert len(about(findings, ERROR, "sources.web", "matches no file")) == 1


def test_source_on_a_hub_is_to_be_fetched_before(tmp_path: Path) -> None:
    source: dict[str, Any] = {"format": "huggingface", "family": "text"}
    source |= {"paths": ["someone/words"], "fields": {"text": "text"}}
    fixed = {**source, "split": "train", "revision": "0" * 40}
    findings = _findings(tmp_path, sources={"hub": fixed})
    assert about(findings, WARNING, "sources.hub", "fetched from a hub")
    assert about(_findings(tmp_path, sources={"hub": source}), ERROR, "split is missing")


def test_adopted_prefix_that_is_not_there_is_found(tmp_path: Path) -> None:
    findings = _findings(tmp_path, adopt={"old": {"prefixes": ["old_*"]}})
    assert len(about(findings, ERROR, "adopt.old", "no such index")) == 1


def test_run_folder_under_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    findings = _findings(tmp_path, run_folder=str(tmp_path / "file" / "run"))
    assert len(about(findings, ERROR, "run_folder", "cannot be written")) == 1


def test_path_that_no_mount_covers_is_found(tmp_path: Path) -> None:
    findings = _mounted(tmp_path, ["/elsewhere"])
    for name in ("base", "run", "recipe.yaml", "wiki.jsonl"):
        assert about(findings, ERROR, f"{tmp_path / name}: no mount covers it"), name
    assert not about(_mounted(tmp_path, ["/elsewhere"], "apptainer"), ERROR)


@pytest.mark.parametrize(
    ("mount", "words"),
    [("{}:/other", "mounted as /other/run, not by its own name"), ("{0}:{0}:ro", "read-only")],
)
def test_run_folder_under_another_name_or_read_only_is_found(
    tmp_path: Path, mount: str, words: str
) -> None:
    assert about(_mounted(tmp_path, [mount.format(tmp_path)]), ERROR, "run_folder", words)


def test_the_innermost_mount_decides(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for mounts in ([f"{tmp_path}", f"{run}:{run}:ro"], [f"{run}:{run}:ro", f"{tmp_path}"]):
        assert about(_mounted(tmp_path, mounts), ERROR, "run_folder", "read-only")
    assert _mounted(tmp_path, [f"{tmp_path}:{tmp_path}:ro", f"{run}:{run}"]) == []
