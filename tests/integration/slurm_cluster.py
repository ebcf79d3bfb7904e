"""A real SLURM on this machine: one partition, one node or several, in a folder of its own.

Every node has a daemon of its own, and all are this machine. The daemons run in the foreground as
children of the test, with their own ports, key and sockets: several clusters may run side by side,
and none touches what the machine's own SLURM uses. They end with the block, and with the test's
process should that be killed; so does what jobs leave running.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from marked_processes import MARK, marked_folder
from vllm_server import free_port

from mira_megatron.launchers.end_with_parent import end_with_parent

INSTALL = Path(__file__).parents[1] / "environments" / "slurm.sh"
_SBIN = "/usr/sbin"
_READY_SECONDS = 60
_STOP_SECONDS = 20
_POLL_SECONDS = 0.05
_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "TIMEOUT"}


@dataclass(frozen=True, slots=True)
class Job:
    """A job, or an element of an array, as SLURM has it."""

    name: str  # "7" or, of an array, "7_0"
    state: str  # RUNNING, PENDING, COMPLETED, ...
    exit_code: int  # 0 while it runs; 128 + n where signal n ended its script
    reason: str  # why it waits, or did not end well


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmCluster:
    """A cluster that takes jobs; each node has `num_cpus` CPUs, whatever the machine has."""

    folder: Path
    nodes: Sequence[str]  # the first one's name is this machine's
    num_cpus: int
    environment: Mapping[str, str] = field(repr=False)  # of whoever talks to it

    @property
    def node(self) -> str:
        """Returns the name of the first node."""
        return self.nodes[0]

    def command(self, *words: object, **environment: str) -> str:
        """Returns what a command of SLURM's wrote to stdout; fails with its stderr."""
        result = subprocess.run(
            [str(word) for word in words],
            env={**self.environment, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
        return result.stdout

    def submit(self, *words: object, **environment: str) -> str:
        """Returns the number of the job that `sbatch` with these words makes."""
        return self.command("sbatch", "--parsable", *words, **environment).strip()

    def jobs(self, number: str) -> dict[str, Job]:
        """Returns a job, or every element of an array, by name; ended ones for some minutes.

        Elements that wait are one, named "7_0-3".
        """
        lines = self.command("scontrol", "--oneliner", "show", "job", number).splitlines()
        jobs = [_job(dict(re.findall(r"(\w+)=(\S*)", line))) for line in lines if line.strip()]
        return {job.name: job for job in jobs}

    def states(self, number: str) -> dict[str, str]:
        """Returns the states of a job's elements, by name."""
        return {name: job.state for name, job in self.jobs(number).items()}

    def has_ended(self, number: str) -> bool:
        """Returns whether all elements of a job have ended, well or not."""
        return set(self.states(number).values()) <= _ENDED

    def wait(self, number: str, *, seconds: float = 300) -> dict[str, str]:
        """Returns the states of a job's elements once all have ended."""
        wait_until(
            lambda: self.has_ended(number),
            lambda: f"job {number} goes on: {self.jobs(number)}\n{self.log()}",
            seconds=seconds,
        )
        return self.states(number)

    def log(self) -> str:
        """Returns the last lines of the daemons' logs."""
        paths = sorted(self.folder.glob("*.out"))
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in paths)


@contextmanager
def running_slurm(*, num_cpus: int = 4, num_nodes: int = 1) -> Iterator[SlurmCluster]:
    """Runs a cluster while the block is open. Fails where SLURM is missing and cannot be had."""
    host = socket.gethostname().partition(".")[0]
    installed = subprocess.run([INSTALL], capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.fail(installed.stderr[-3000:])
    with marked_folder("slurm") as folder, ExitStack() as ending:
        cluster = SlurmCluster(
            folder=folder,
            nodes=(host, *(f"{host}-{number}" for number in range(1, num_nodes))),
            num_cpus=num_cpus,
            environment={
                **{name: value for name, value in os.environ.items() if "SLURM" not in name},
                "PATH": f"{os.environ['PATH']}:{_SBIN}",
                "SLURM_CONF": str(folder / "slurm.conf"),
                MARK: str(folder),
            },
        )
        _start(cluster, ending)
        yield cluster
        with suppress(AssertionError):  # a controller that a test has ended takes no words
            cluster.command("scancel", "--user", pwd.getpwuid(os.getuid()).pw_name)
            wait_until(
                lambda: not cluster.command("squeue", "--noheader").strip(),
                lambda: "jobs go on",
                seconds=_STOP_SECONDS,
            )


def wait_until(
    is_so: Callable[[], bool],
    problem: Callable[[], str],
    *,
    is_over: Callable[[], bool] = lambda: False,
    seconds: float = 300,
) -> None:
    """Waits until something is so; fails with the problem once it cannot be, or in the end."""
    end = time.monotonic() + seconds
    while not is_so():
        assert not is_over() or is_so(), problem()
        assert time.monotonic() < end, problem()
        time.sleep(_POLL_SECONDS)


def _job(values: Mapping[str, str]) -> Job:
    name = values["JobId"]
    if "ArrayJobId" in values:
        name = f"{values['ArrayJobId']}_{values['ArrayTaskId']}"
    code, _, number = values["ExitCode"].partition(":")
    exit_code = 128 + int(number) if int(number) else int(code)
    return Job(name, values["JobState"], exit_code, values["Reason"])


def _start(cluster: SlurmCluster, ending: ExitStack) -> None:
    """Starts the daemons; they end, the last first, with `ending`."""
    folder = cluster.folder
    for name in ("state", *(f"spool-{node}" for node in cluster.nodes)):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(_configuration(cluster), encoding="utf-8")
    munge = [f"--{name}={folder / file}" for name, file in _MUNGE_FILES.items()]
    # Its folder is below one that everybody may write to, which munged refuses unless forced.
    daemons = {
        "munged": ["munged", "--foreground", "--force", *munge],
        "slurmctld": ["slurmctld", "-D"],
        **{f"slurmd-{node}": ["slurmd", "-D", "-N", node] for node in cluster.nodes},
    }
    started = [
        ending.enter_context(_daemon(words, cluster, folder / f"{name}.out"))
        for name, words in daemons.items()
    ]

    def is_ready() -> bool:
        ended = [each.args for each in started if each.poll() is not None]
        assert not ended, f"{ended}: {cluster.log()}"
        found = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%t"],
            env=cluster.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return found.stdout.split() == ["idle"] * len(cluster.nodes)

    wait_until(is_ready, cluster.log, seconds=_READY_SECONDS)


_MUNGE_FILES = {
    "key-file": "munge.key",
    "socket": "munge.socket",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "munge.seed",
}


def _configuration(cluster: SlurmCluster) -> str:
    folder, user = cluster.folder, pwd.getpwuid(os.getuid()).pw_name
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={cluster.node} NodeAddr=127.0.0.1 Port={free_port()} "
        f"CPUs={cluster.num_cpus} State=UNKNOWN"
        for node in cluster.nodes
    )
    return f"""\
ClusterName=mira
SlurmctldHost={cluster.node}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is put back waits for as long as a credential lives, two minutes unless told.
AuthInfo=socket={folder}/munge.socket,cred_expire=15
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
# A node has as many CPUs as the tests want, whatever the machine has.
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def _daemon(
    words: Sequence[str], cluster: SlurmCluster, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        process.kill()
        process.wait()
