from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from swe_files import BROKEN, REFUSED, RIGHT, SLOW, WRONG, calls, install_engine

from mira_megatron.eval.swe.container_runs import PatchRun, run_patches
from mira_megatron.eval.swe.engines import ENGINES, SETTINGS, Engine

DOCKER = Engine(name="docker")


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install_engine(tmp_path / "bin", "docker", monkeypatch)


def a_run(
    patch: str, instance_id: str = "mine__adder-1", setting: str = DOCKER.setting
) -> PatchRun:
    return PatchRun(
        instance_id=instance_id,
        image="mine/a:1",
        evaluation="true",
        patch=patch,
        setting=setting,
    )


def ran(logs: Path, *runs: PatchRun, engine: Engine = DOCKER, seconds: float = 60) -> Counter[str]:
    return run_patches(runs, engine, logs, workers=2, seconds=seconds)


def end_of(run: PatchRun, logs: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(run.end_path(logs).read_bytes())
    return content


def test_log_and_end_are_kept_and_not_made_again(tmp_path: Path, called: Path) -> None:
    run = a_run(RIGHT)
    assert ran(tmp_path / "logs", run) == Counter(there=0, ran=1)
    log = run.log_path(tmp_path / "logs").read_text()
    assert log.startswith(">>>>> Start Test Output\n--- PASS: TestAdd")
    assert "\N{REPLACEMENT CHARACTER}" in log
    assert "applied" not in log
    end = end_of(run, tmp_path / "logs")
    assert (end["exit_code"], end["is_timed_out"], end["said"]) == (0, False, "applied\n")
    assert ran(tmp_path / "logs", run) == Counter(there=1)
    assert len(calls(called)) == 1
    assert sorted(path.suffix for path in (tmp_path / "logs/mine__adder-1").iterdir()) == [
        ".json",
        ".log",
    ]


def test_another_engine_or_network_is_another_run(tmp_path: Path) -> None:
    engines = [Engine(name=name, has_network=has) for name in ENGINES for has in (True, False)]
    assert tuple(engine.setting for engine in engines) == SETTINGS
    paths = {a_run(RIGHT, setting=setting).log_path(tmp_path) for setting in SETTINGS}
    assert len(paths) == 6


def test_another_patch_of_the_same_instance_is_another_run(tmp_path: Path, called: Path) -> None:
    ran(tmp_path, a_run(RIGHT))
    assert ran(tmp_path, a_run(RIGHT), a_run(WRONG)) == Counter(there=1, ran=1)
    assert len(calls(called)) == 2


def test_what_the_engine_could_not_do_leaves_nothing(tmp_path: Path, called: Path) -> None:
    logs = tmp_path / "logs"
    assert ran(logs, a_run(BROKEN), a_run(RIGHT, "b-2")) == Counter(there=0, failed=1, ran=1)
    assert list((logs / "mine__adder-1").iterdir()) == []
    assert ran(logs, a_run(BROKEN))["failed"] == 1


def test_patch_that_does_not_apply_is_a_finished_run(tmp_path: Path, called: Path) -> None:
    run = a_run(REFUSED)
    assert ran(tmp_path, run)["ran"] == 1
    end = end_of(run, tmp_path)
    assert (end["is_patch_refused"], end["said"]) == (True, "error: patch failed\n")


def test_container_that_takes_too_long_is_killed_by_its_name(tmp_path: Path, called: Path) -> None:
    run = a_run(SLOW)
    assert ran(tmp_path / "logs", run, seconds=1)["ran"] == 1
    end = end_of(run, tmp_path / "logs")
    assert end["is_timed_out"]
    log = run.log_path(tmp_path / "logs").read_text()
    assert log.endswith("Timeout error: 1 seconds exceeded.\n")
    started, killed = calls(called)
    assert killed == ["kill", started[started.index("--name") + 1]]


def test_run_whose_time_was_up_is_made_again_with_more_time_alone(
    tmp_path: Path, called: Path
) -> None:
    run, engine = a_run(SLOW), tmp_path / "bin/docker"
    ran(tmp_path / "logs", run, seconds=1)
    assert ran(tmp_path / "logs", run, seconds=1) == Counter(there=1)
    engine.write_text(engine.read_text().replace("exec sleep 300", "exit 0"))
    assert ran(tmp_path / "logs", run, seconds=60) == Counter(there=0, ran=1)
    assert not end_of(run, tmp_path / "logs")["is_timed_out"]
    assert "Timeout" not in run.log_path(tmp_path / "logs").read_text()
    assert ran(tmp_path / "logs", run, seconds=90) == Counter(there=1)


@pytest.mark.parametrize(("name", "end"), [("docker", "failed"), ("apptainer", "ran")])
def test_killed_client_of_an_engine_is_no_fault_of_the_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str
) -> None:
    install_engine(tmp_path / "bin", name, monkeypatch)
    engine = tmp_path / "bin" / name
    engine.write_text(engine.read_text().replace('echo "applied" >&2', "kill -9 $$"))
    assert ran(tmp_path / "logs", a_run(RIGHT), engine=Engine(name=name))[end] == 1


def test_apptainer_ends_with_the_process_that_began_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = install_engine(tmp_path / "bin", "apptainer", monkeypatch)
    run = a_run(SLOW)
    engine = Engine(name="apptainer")
    assert ran(tmp_path / "logs", run, engine=engine, seconds=1)["ran"] == 1
    assert end_of(run, tmp_path / "logs")["is_timed_out"]
    assert len(calls(called)) == 1


def test_engine_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="docker is not on PATH"):
        ran(tmp_path / "logs", a_run(RIGHT))


def test_container_is_given_patch_script_and_evaluation_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = install_engine(tmp_path / "bin", "docker", monkeypatch)
    engine = tmp_path / "bin/docker"
    engine.write_text(engine.read_text().replace('echo "applied"', 'ls "$folder"'))
    run = a_run("RIGHT $(touch gone); `x`")
    ran(tmp_path / "logs", run)
    assert end_of(run, tmp_path / "logs")["said"] == "eval.sh\npatch.diff\nrun.sh\n"
    assert all("touch" not in word for word in calls(called)[0])


def test_killed_run_goes_on_with_what_is_left(tmp_path: Path, called: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from mira_megatron.eval.swe.container_runs import PatchRun, run_patches\n"
        "from mira_megatron.eval.swe.engines import Engine\n"
        "runs = [PatchRun(instance_id=f'a-{n}', image='mine/a:1', evaluation='true', patch=p,\n"
        "                 setting='docker')\n"
        "        for n, p in enumerate(['RIGHT', 'SLOW'])]\n"
        "run_patches(runs, Engine(name='docker'), Path(sys.argv[1]), workers=1, seconds=60)\n"
    )
    logs = tmp_path / "logs"
    process = subprocess.Popen([sys.executable, "-c", program, str(logs)])
    first, second = a_run("RIGHT", "a-0"), a_run("SLOW", "a-1")
    while len(calls(called)) < 2 or not list((tmp_path / "bin").glob("*.pid")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert first.end_path(logs).exists()
    assert not second.end_path(logs).exists()
    (container,) = (tmp_path / "bin").glob("*.pid")
    os.kill(int(container.read_text()), signal.SIGKILL)  # the fake has no daemon to end it
    assert ran(logs, first, second, seconds=0.5) == Counter(there=1, ran=1)


def test_log_without_end_is_cut_and_its_container_killed(
    tmp_path: Path, called: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "bin/docker"
    engine.write_text(engine.read_text().replace("exec sleep 300", "exec yes"))
    run = a_run(SLOW)
    counts = run_patches(
        [run], DOCKER, tmp_path / "logs", workers=1, seconds=60, max_log_bytes=1 << 20
    )
    assert counts["ran"] == 1
    assert "Stopped: more than 1,048,576 bytes" in str(end_of(run, tmp_path / "logs")["why"])
    assert run.log_path(tmp_path / "logs").stat().st_size < (1 << 20) + 100
