"""Servers of a job: real processes and real HTTP."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import unused_port

from mira_megatron.config import Recipe
from mira_megatron.launchers.job_children import AttemptFailed, JobChildren, Stopped
from mira_megatron.launchers.job_file import JobFile, Server, recipe_digest
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.launchers.job_runner import DONE, RUN_AGAIN, run_job
from mira_megatron.launchers.serving_job import (
    endpoint_words,
    health_problem,
    placed_words,
    running_servers,
)
from mira_megatron.manifest import read_manifest
from mira_megatron.rubric.rule_judge import MODEL_NAME

pytest_plugins = ("judged_recipes",)

# Answers 503 so many times before 200; what it is told besides makes it a bad server.
SERVER = """
import http.server, os, signal, subprocess, sys, threading, time
port, num_not_ready, behaviour = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
print("loading\\x1b[2J weights", flush=True)
if behaviour == "dies":
    sys.exit("no room for the cache")
if behaviour == "stays":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if behaviour == "engine":
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("engine", engine.pid, flush=True)
looks = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        looks.append(1)
        self.send_response(200 if len(looks) > num_not_ready else 503)
        self.end_headers()
    def log_message(self, *words):
        pass
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
signal.signal(signal.SIGTERM, lambda *_: (print("ended in order", flush=True), os._exit(0))) if (
    behaviour != "stays"
) else None
server.serve_forever()
"""


@pytest.fixture
def children() -> Iterator[JobChildren]:
    with JobChildren() as children:
        yield children


def served(folder: Path, num_not_ready: int, behaviour: str, **values: int) -> JobFile:
    port = unused_port()
    command = (sys.executable, "-c", SERVER, str(port), str(num_not_ready), behaviour)
    server = Server(
        commands=(command,),
        health_urls=(f"http://127.0.0.1:{port}/health",),
        **{"ready_seconds": 60, "stop_seconds": 5, **values},
    )
    job = JobFile(
        name="label",
        stage="label",
        kind="serve",
        recipe=folder / "recipe.yaml",
        overrides=(),
        recipe_digest="0" * 64,
        run_folder=folder,
        workers=1,
        server=server,
    )
    job.write()
    return job


def log(job: JobFile) -> str:
    return (job.folder / "server-0-0-0.txt").read_text()


def test_server_is_waited_for_and_ended_in_order(tmp_path: Path, children: JobChildren) -> None:
    job = served(tmp_path, 3, "")
    assert job.server is not None
    with running_servers(job, JobPlace(), children) as servers:
        servers.wait_until_ready(poll_seconds=0.02)
        assert health_problem(job.server.health_urls[0]) is None
    assert "ended in order" in log(job)
    problem = health_problem(job.server.health_urls[0])
    assert problem is not None
    assert problem.startswith("it does not answer")


def test_server_that_dies_before_it_is_ready_fails_at_once_with_its_last_words(
    tmp_path: Path, children: JobChildren
) -> None:
    job = served(tmp_path, 0, "dies", ready_seconds=600)
    with (
        pytest.raises(AttemptFailed, match="no room for the cache") as failed,
        running_servers(job, JobPlace(), children) as servers,
    ):
        servers.wait_until_ready(poll_seconds=0.02)
    assert failed.value.code == 1
    assert r"loading\x1b[2J weights" in str(failed.value)  # no terminal is told to do anything


def test_words_of_an_earlier_attempt_are_not_told_as_those_of_this_one(
    tmp_path: Path, children: JobChildren
) -> None:
    job = served(tmp_path, 0, "dies")
    (job.folder / "server-0-0-0.txt").write_text("yesterday\n")
    with (
        pytest.raises(AttemptFailed) as failed,
        running_servers(job, JobPlace(), children) as servers,
    ):
        servers.wait_until_ready(poll_seconds=0.02)
    assert "yesterday" not in str(failed.value)
    assert log(job).startswith("yesterday")


def test_server_that_is_never_ready_ends_after_ready_seconds_and_says_what_it_answers(
    tmp_path: Path, children: JobChildren
) -> None:
    job = served(tmp_path, 10**9, "", ready_seconds=3)
    with (
        pytest.raises(AttemptFailed, match=r"was not ready within ready_seconds=3 \(it"),
        running_servers(job, JobPlace(), children) as servers,
    ):
        servers.wait_until_ready(poll_seconds=0.02)


def test_server_that_dies_while_it_is_asked_ends_the_stage(
    tmp_path: Path, children: JobChildren
) -> None:
    job = served(tmp_path, 0, "", stop_seconds=1)
    with running_servers(job, JobPlace(), children) as servers:
        servers.wait_until_ready(poll_seconds=0.02)
        os.kill(servers.processes[0].pid, signal.SIGKILL)
        stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        stage = children.start([sys.executable, "-c", stubborn])
        with pytest.raises(AttemptFailed, match="a server was ended by signal 9"):
            servers.watch(stage)
    assert stage.poll() is not None


def test_server_that_does_not_end_is_ended_with_all_it_started(
    tmp_path: Path, children: JobChildren
) -> None:
    job = served(tmp_path, 0, "stays", stop_seconds=1)
    with running_servers(job, JobPlace(), children) as servers:
        servers.wait_until_ready(poll_seconds=0.02)
    assert servers.processes[0].returncode == -signal.SIGKILL
    job = served(tmp_path / "other", 0, "engine")
    with running_servers(job, JobPlace(), children) as servers:
        servers.wait_until_ready(poll_seconds=0.02)
    engine = Path("/proc", log(job).split("engine ")[1].split()[0], "stat")
    wait_until_gone(engine)


def wait_until_gone(stat: Path) -> None:
    for _ in range(3000):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("what the server started goes on")


def test_job_told_to_end_waits_for_no_server(tmp_path: Path, children: JobChildren) -> None:
    job = served(tmp_path, 10**9, "", ready_seconds=600)
    with running_servers(job, JobPlace(), children) as servers:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stopped):
            servers.wait_until_ready(poll_seconds=0.02)
    assert servers.processes[0].poll() is not None


def test_signal_does_not_reach_servers_before_the_stage_has_ended(
    tmp_path: Path, children: JobChildren
) -> None:
    job = served(tmp_path, 0, "")
    assert job.server is not None
    asks = (
        "import signal, sys, time, urllib.request\n"
        "told = []\n"
        "signal.signal(15, lambda *_: told.append(1))\n"
        "print('up', flush=True)\n"
        "while not told: time.sleep(0.01)\n"
        "sys.exit(urllib.request.urlopen(sys.argv[1]).status - 200)\n"
    )
    with running_servers(job, JobPlace(), children) as servers:
        servers.wait_until_ready(poll_seconds=0.02)
        with (tmp_path / "stage.txt").open("wb") as output:
            words = [sys.executable, "-c", asks, job.server.health_urls[0]]
            stage = children.start(words, output=output)
        while not (tmp_path / "stage.txt").read_bytes():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        assert servers.watch(stage) == 0
        assert "ended in order" not in log(job)


def test_servers_end_at_the_signal_that_ends_the_job_is_no_failure(
    judged_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = judged_recipe()
    # One ends before the signal has reached the job, and the other as it does.
    first = (
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)"
    )
    other = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(15, lambda *_: (os.kill(os.getppid(), 15), os._exit(0)))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)"
    )
    up = str(tmp_path / "up")
    job = replace(
        served(recipe.run_folder, 0, ""),
        recipe=recipe.path,
        recipe_digest=recipe_digest(recipe),
        max_failures=0,
        server=Server(
            commands=tuple((sys.executable, "-c", each, up) for each in (first, other)),
            health_urls=("http://127.0.0.1:9/health",),
        ),
        stage="score",
    )
    assert run_job(job.write(), JobPlace(job="7")) == RUN_AGAIN
    assert not list(job.folder.glob("failures*"))


def test_address_of_a_server_may_name_the_head(tmp_path: Path, children: JobChildren) -> None:
    job = served(tmp_path, 0, "")
    assert job.server is not None
    urls = tuple(url.replace("127.0.0.1", "{head}") for url in job.server.health_urls)
    job = replace(job, server=replace(job.server, health_urls=urls))
    with running_servers(job, JobPlace(), children) as servers:
        servers.wait_until_ready(poll_seconds=0.02)


def test_address_that_answers_before_the_server_is_started_is_refused(
    tmp_path: Path, children: JobChildren
) -> None:
    job = served(tmp_path, 0, "")
    with running_servers(job, JobPlace(), children) as servers:
        servers.wait_until_ready(poll_seconds=0.02)
        another = running_servers(job, JobPlace(), children)
        with pytest.raises(AttemptFailed, match="answers before the server is started"):
            another.__enter__()


def test_words_of_a_server_are_told_where_they_run() -> None:
    place = JobPlace(node=2, num_nodes=4, head="n-1")
    words = ["serve", "--rank={node}/{nodes}", "{head}:1", '{"a": {}}']
    assert placed_words(words, place) == ["serve", "--rank=2/4", "n-1:1", '{"a": {}}']


def test_stage_asks_the_servers_of_its_job(
    judged_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    port = unused_port()
    score = {"engine": "endpoint", "model": MODEL_NAME, "temperature": 0, "top_p": 1}
    score |= {"max_tokens": 2048, "endpoints": ["http://127.0.0.1:9/v1"]}
    recipe = judged_recipe(score=score)
    words = [sys.executable, "-m", "mira_megatron.cli", "judge-server", "--port", str(port)]
    server = Server(
        commands=(tuple(words),), health_urls=(f"http://127.0.0.1:{port}/health",), stop_seconds=20
    )
    job = JobFile(
        name="score",
        stage="score",
        kind="serve",
        recipe=recipe.path,
        overrides=(),
        recipe_digest=recipe_digest(recipe),
        run_folder=recipe.run_folder,
        workers=1,
        server=server,
    )
    assert endpoint_words(job, recipe, JobPlace()) == [
        f'score.endpoints=["http://127.0.0.1:{port}/v1"]'
    ]
    assert run_job(job.write(), JobPlace()) == DONE
    assert read_manifest(recipe.run_folder / "ratings/mira/notes") is not None
