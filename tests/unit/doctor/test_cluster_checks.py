from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from preflight_recipes import about, subject

from mira_megatron.doctor.cluster_checks import check_cluster, short_lived_ports
from mira_megatron.doctor.finding import ERROR, WARNING, Finding

INSTRUCT_SFT = "qwen25_coder_14b_instruct_sft_8gpu_h200_bf16_config"
SCORE = {
    "engine": "endpoint",
    "model": "scorer",
    "endpoints": ["http://127.0.0.1:8123/v1"],
    "temperature": 0.0,
    "top_p": 1.0,
    "max_tokens": 100,
}


def _findings(folder: Path, cluster: dict[str, Any], **sections: Any) -> list[Finding]:
    looked_at = subject(folder, cluster, **sections)
    assert looked_at.cluster is not None
    return check_cluster(looked_at, looked_at.cluster)


def _served(*urls: str) -> dict[str, Any]:
    return {"servers": {"score": {"commands": [["serve"]], "health_urls": list(urls)}}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_cluster_that_fits_is_silent(tmp_path: Path) -> None:
    assert _findings(tmp_path, {}) == []
    image = tmp_path / "mira.sqsh"
    image.touch()
    containers = {"default": str(image), "midtrain": "nvcr.io#nvidia/nemo:25.11"}
    assert _findings(tmp_path, {"container_runtime": "pyxis", "containers": containers}) == []


def test_stage_without_an_image_is_found(tmp_path: Path) -> None:
    cluster = {"container_runtime": "pyxis", "containers": {"midtrain": "nemo:25.11"}}
    (line,) = about(_findings(tmp_path, cluster), ERROR)
    assert "no image is named for ingest, " in line
    assert "midtrain," not in line


def test_image_that_is_not_there_is_found(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.sqsh")
    cluster = {"container_runtime": "pyxis", "containers": {"default": gone}}
    assert about(_findings(tmp_path, cluster), ERROR, f"{gone}: no such image")


@pytest.mark.parametrize("image", ["nvcr.io/nvidia/nemo", "registry:5000/nemo"])
def test_image_without_a_version_is_found(tmp_path: Path, image: str) -> None:
    cluster = {"container_runtime": "pyxis", "containers": {"default": image}}
    assert about(_findings(tmp_path, cluster), WARNING, f"{image} names no version")


def test_key_that_jobs_are_not_handed_is_found(tmp_path: Path) -> None:
    keyed = {**SCORE, "api_key_env": "SCORER_KEY", "endpoints": ["https://else.where/v1"]}
    (line,) = about(_findings(tmp_path, {}, score=keyed), ERROR)
    assert "score.api_key_env: it names SCORER_KEY" in line
    assert not _findings(tmp_path, {"environment": ["SCORER_KEY"]}, score=keyed)


def test_endpoint_of_the_node_itself_needs_a_server_on_its_port(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {}, score=SCORE)
    assert about(findings, ERROR, "score.endpoints", "http://127.0.0.1:8123/v1", "runs score")
    findings = _findings(tmp_path, _served("http://127.0.0.1:8124/health"), score=SCORE)
    assert about(findings, ERROR, "runs score")
    findings = _findings(tmp_path, _served("http://127.0.0.1:8123/health"), score=SCORE)
    assert not about(findings, ERROR, "runs score")


def test_server_addresses_that_clash_are_found(tmp_path: Path) -> None:
    twice = _served("http://127.0.0.1:8123/health", "http://127.0.0.1:8123/ready")
    assert about(_findings(tmp_path, twice, score=SCORE), ERROR, "127.0.0.1:8123 is named 2 times")
    root = _served("http://127.0.0.1/health")
    assert about(_findings(tmp_path, root, score=SCORE), ERROR, "127.0.0.1:80: ports below 1,024")


def test_server_port_among_those_of_outgoing_connections_is_found(tmp_path: Path) -> None:
    port = short_lived_ports()[0]
    findings = _findings(tmp_path, _served(f"http://127.0.0.1:{port}/health"), score=SCORE)
    assert about(findings, WARNING, f"127.0.0.1:{port} lies among the ports")


def test_ports_of_outgoing_connections_are_the_machines_own(tmp_path: Path) -> None:
    (tmp_path / "range").write_text("40000\t40009\n")
    assert short_lived_ports(tmp_path / "range") == range(40_000, 40_010)
    assert short_lived_ports(tmp_path / "gone") == range(32_768, 61_000)


def test_server_port_that_is_taken_here_is_found(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/health"
        findings = _findings(tmp_path, _served(url), score=SCORE)
    assert about(findings, WARNING, "listens on")
    findings = _findings(tmp_path, _served(f"http://127.0.0.1:{_free_port()}/h"), score=SCORE)
    assert not about(findings, WARNING, "listens on")


def test_trainings_in_images_that_differ_are_found(tmp_path: Path) -> None:
    tuning = {"trainer": "bridge", "config": INSTRUCT_SFT, "data": ["chats.jsonl"]}
    containers = {"default": "mira:1", "midtrain": "nemo:25.11"}
    cluster = {"container_runtime": "pyxis", "containers": containers}
    (line,) = about(_findings(tmp_path, cluster, instruct_sft=tuning), WARNING)
    assert "midtrain in nemo:25.11, instruct-sft in mira:1" in line
    containers["instruct-sft"] = "nemo:25.11"
    assert not about(_findings(tmp_path, cluster, instruct_sft=tuning), WARNING)
