"""What is installed here, and whether the disk has room for checkpoints."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mira_megatron.doctor.finding import ERROR, INFO, WARNING, Finding
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.bridge_versions import release

PACKAGES = (
    "torch",
    "megatron-core",
    "megatron-bridge",
    "transformer-engine",
    "transformers",
    "vllm",
)
# Weights in bfloat16; main parameters and two moments in float32.
CHECKPOINT_BYTES_PER_PARAMETER = 14


def installed_versions() -> dict[str, str | None]:
    """Returns the release of every package that matters; None where it is not installed."""
    return {name: _version(name) for name in PACKAGES}


def gpus() -> list[str]:
    """Returns one line per GPU, with its driver; empty where there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    outcome = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return outcome.stdout.strip().splitlines() if outcome.returncode == 0 else []


def environment_findings(versions: dict[str, str | None], gpu_lines: list[str]) -> list[Finding]:
    """Returns what is installed, line by line, and what cannot work together."""
    lines = [
        Finding(level=INFO, what=release_text or "not installed", where=name)
        for name, release_text in versions.items()
    ]
    lines.append(Finding(level=INFO, what="; ".join(gpu_lines) or "none", where="GPUs"))
    return [*lines, *check_one_environment(versions), *check_cuda_build(versions, gpu_lines)]


def check_one_environment(versions: dict[str, str | None]) -> list[Finding]:
    """Finds vLLM and Megatron-Bridge in one environment: they need different transformers."""
    if versions.get("vllm") is None or versions.get("megatron-bridge") is None:
        return []
    return [
        Finding(
            level=WARNING,
            what="vLLM and Megatron-Bridge are in one environment, and need different releases of "
            "transformers",
            where=f"transformers {versions.get('transformers')}",
            way_out="train and serve from two environments; they meet in files only",
        )
    ]


def check_cuda_build(versions: dict[str, str | None], gpu_lines: list[str]) -> list[Finding]:
    """Finds a torch that cannot use the GPUs of this machine."""
    torch = versions.get("torch")
    if torch is None or not gpu_lines or not torch.endswith("+cpu"):
        return []
    return [
        Finding(
            level=ERROR,
            what="this torch is a CPU build, and the machine has GPUs",
            where=f"torch {torch}",
            way_out="install torch from an index with CUDA builds",
        )
    ]


def check_transformers(versions: dict[str, str | None]) -> list[Finding]:
    """Finds a transformers that Megatron-Bridge 0.3 does not take."""
    bridge, transformers = versions.get("megatron-bridge"), versions.get("transformers")
    if bridge is None or transformers is None:
        return []
    if release(bridge)[:2] >= (0, 4) or release(transformers)[0] < 5:
        return []
    return [
        Finding(
            level=ERROR,
            what=f"Megatron-Bridge {bridge} needs transformers < 5",
            where=f"transformers {transformers}",
            way_out="install requirements/bridge.txt",
        )
    ]


def check_disk(folder: Path, free_bytes: int, model: ClusterModel, num_kept: int) -> list[Finding]:
    """Finds a disk without room for the checkpoints that are kept, and the one being written."""
    num_parameters = model.num_parameters
    needed = num_parameters * CHECKPOINT_BYTES_PER_PARAMETER * (num_kept + 1)
    if free_bytes >= needed:
        return []
    return [
        Finding(
            level=ERROR,
            what=f"{num_kept} checkpoints and one being written take {needed / 1e9:,.0f} GB, "
            f"{free_bytes / 1e9:,.0f} GB are free",
            where=str(folder),
            way_out="put the run folder on a larger disk, or keep fewer checkpoints",
        )
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
