"""A real Ray cluster on this machine, and `mira` as its driver, both from the ray environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from environments import environment_python
from marked_processes import MARK, marked_folder
from slurm_cluster import wait_until
from vllm_server import free_port

from mira_megatron.launchers.end_with_parent import end_with_parent

_REPOSITORY = Path(__file__).parents[2]
_READY_SECONDS = 180


@dataclass(frozen=True, kw_only=True, slots=True)
class RayCluster:
    """A cluster that takes tasks."""

    python: Path
    address: str
    environment: Mapping[str, str] = field(repr=False)

    def driver(self, output: Path, *words: object, **environment: str) -> subprocess.Popen[bytes]:
        """Returns `mira` with these words and --ray, started; what it writes goes to `output`."""
        mira = [self.python, "-m", "mira_megatron.cli", *words, f"--ray={self.address}"]
        with output.open("wb") as file:
            return subprocess.Popen(
                [str(word) for word in mira],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextmanager
def running_ray(*, num_cpus: int) -> Iterator[RayCluster]:
    """Runs a cluster while the block is open, and ends all that it started after it."""
    with marked_folder("ray") as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": str(_REPOSITORY),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            MARK: str(folder),
        }
        cluster = RayCluster(
            python=environment_python("ray"),
            address=f"127.0.0.1:{free_port()}",
            environment=environment,
        )
        _start_head(cluster, folder, num_cpus)
        yield cluster


def _start_head(cluster: RayCluster, folder: Path, num_cpus: int) -> None:
    # The console script names the folder that the environment was built in.
    ray = [str(cluster.python), "-m", "ray.scripts.scripts"]
    port = cluster.address.rpartition(":")[2]
    command = [
        *(*ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"),
        *(f"--num-cpus={num_cpus}", "--num-gpus=0", "--include-dashboard=false"),
        f"--temp-dir={folder}",
    ]
    log = folder / "head.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            command,
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    asked = [*ray, "health-check", f"--address={cluster.address}"]
    wait_until(
        lambda: subprocess.run(asked, env=cluster.environment, capture_output=True).returncode == 0,
        log.read_text,
        is_over=lambda: head.poll() is not None,
        seconds=_READY_SECONDS,
    )
