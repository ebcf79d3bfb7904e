from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mira_megatron import layout
from mira_megatron.cli import main
from mira_megatron.config import Recipe
from mira_megatron.distill.scorer_card import EXPORT, ScorerCard
from mira_megatron.manifest import Counts
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.scoring.serve import ServedModel, ServeOptions, Server, run_servers, servers
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]

MODEL = ServedModel(model="/runs/a b/hf", served_model_name="mira-v1-qa", max_model_len=4096)
GROUP, RUBRIC = "text-notes", "mira"
DISTILLED = {
    "distill": {},
    "score": {"engine": "transformers", "answer_mode": "expected", "max_tokens": 24},
}
CARD = ScorerCard(
    rubric=RUBRIC,
    group=GROUP,
    family="text",
    rubric_version="of-a-test",
    prompt_key="of-a-test",
    form=PromptForm(prompt="bare", references=False, answers="compact"),
    max_record_tokens=64,
    max_model_len=700,
    served_model_name="mira-given-text-notes",
)
# Writes the ids of its two processes; like vLLM's engine, the second does not heed SIGTERM.
STUBBORN = """
import os, subprocess, sys, time
ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", ignores])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.replace(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
"""
RUN = """
import signal, sys
from mira_megatron.scoring.serve import Server, run_servers
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.default_int_handler)  # under nohup a hangup would be ignored
script, *paths = sys.argv[1:]
words = [(sys.executable, "-c", script, path) for path in paths]
sys.exit(run_servers([Server(words=each, url="http://127.0.0.1:1/v1") for each in words]))
"""
FAILING = Server(words=(sys.executable, "-c", "raise SystemExit(3)"), url="")


def value(server: Server, option: str) -> str:
    return server.words[server.words.index(option) + 1]


def stubborn(pids: Path) -> Server:
    return Server(words=(sys.executable, "-c", STUBBORN, str(pids)), url="")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_in(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()]


def test_servers_throughput_is_one_per_gpu() -> None:
    found = servers(MODEL, ServeOptions(gpus=3, port=9000))

    assert [server.url for server in found] == [
        f"http://127.0.0.1:{port}/v1" for port in (9000, 9001, 9002)
    ]
    assert [server.environment["CUDA_VISIBLE_DEVICES"] for server in found] == ["0", "1", "2"]
    assert all("--tensor-parallel-size" not in server.words for server in found)
    assert value(found[0], "--max-model-len") == "4096"


def test_servers_keep_to_the_gpus_that_may_be_used() -> None:
    found = servers(MODEL, ServeOptions(gpus=2, gpu_ids=("4", "GPU-5f", "6")))

    assert [server.environment["CUDA_VISIBLE_DEVICES"] for server in found] == ["4", "GPU-5f"]


def test_servers_published_is_one_over_eight_gpus() -> None:
    any_length = ServedModel(model="/hf", served_model_name="mira-v1-qa", max_model_len=None)
    (server,) = servers(any_length, ServeOptions(profile="published", gpus=8))

    assert value(server, "--tensor-parallel-size") == "8"
    assert value(server, "--max-model-len") == "65536"
    assert value(server, "--max-num-batched-tokens") == "131072"
    assert server.environment == {}


def test_servers_published_of_a_shorter_model_keeps_its_length() -> None:
    (server,) = servers(MODEL, ServeOptions(profile="published", gpus=8))

    assert value(server, "--max-model-len") == "4096"


def test_servers_on_the_cpu_read_a_prompt_in_one_step() -> None:
    (server,) = servers(MODEL, ServeOptions(gpus=0, more=("--dtype", "float32")))

    assert "--no-enable-chunked-prefill" in server.words
    assert server.words[-2:] == ("--dtype", "float32")


def test_servers_line_does_in_a_shell_what_its_words_say(tmp_path: Path) -> None:
    python = tmp_path / "it's $HOME" / "python"
    python.parent.mkdir()
    python.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([os.environ['VLLM_CPU_KVCACHE_SPACE'], *sys.argv]))\n"
    )
    python.chmod(0o755)
    options = ServeOptions(gpus=0, python=str(python), more=("--override", '{"a": "$(b)"}'))
    (server,) = servers(MODEL, options)

    said = subprocess.run(["bash", "-c", server.line], capture_output=True, check=True).stdout
    assert json.loads(said) == ["1", *server.words]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"profile": "fast"}, "--profile 'fast'"),
        ({"gpus": -1}, "--gpus -1"),
        ({"profile": "published", "gpus": 4}, "--gpus 4"),
        ({"gpus": 2, "gpu_ids": ("7",)}, "--gpus 2: CUDA_VISIBLE_DEVICES=7 has 1"),
        ({"port": 0}, "--port 0"),
        ({"port": 65535, "gpus": 2}, "--port 65535"),
    ],
)
def test_serve_options_wrong_value_is_refused(options: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ServeOptions(**options)  # type: ignore[arg-type]


def test_run_servers_one_that_ends_ends_the_others_with_their_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    wait = (
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(.02)"
    )
    failing = (sys.executable, "-c", f"{wait}\nraise SystemExit(3)", str(pids))

    assert run_servers([stubborn(pids), Server(words=failing, url="")]) == 3
    wait_until(lambda: not any(map(is_running, pids_in(pids))))


@pytest.mark.parametrize(
    ("ending", "code"), [("raise SystemExit(0)", 1), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_run_servers_no_end_of_a_server_is_a_success(ending: str, code: int) -> None:
    assert run_servers([Server(words=(sys.executable, "-c", ending), url="")]) == code


def test_run_servers_program_that_is_not_there_ends_the_others(tmp_path: Path) -> None:
    pids, missing = tmp_path / "pids", tmp_path / "python"

    with pytest.raises(FileNotFoundError, match=f"--python {missing}: cannot be run"):
        run_servers([stubborn(pids), Server(words=(str(missing),), url="")])
    wait_until(lambda: not pids.exists() or not any(map(is_running, pids_in(pids))))


def test_run_servers_signal_handlers_are_as_before() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    run_servers([FAILING])
    after = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_run_servers_signal_ends_all_with_their_children(tmp_path: Path, number: int) -> None:
    files = [tmp_path / "first", tmp_path / "second"]
    process = running(files)

    process.send_signal(number)
    assert process.wait(60) == 128 + number
    wait_until(lambda: not any(is_running(pid) for file in files for pid in pids_in(file)))


def test_run_servers_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    process = running([tmp_path / "pids"])
    server, child = pids_in(tmp_path / "pids")

    process.kill()
    process.wait()
    wait_until(lambda: not is_running(server))  # which with vLLM ends its engine
    os.kill(child, signal.SIGKILL)


def running(files: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Returns a process that runs a stubborn server for each file, all of them started."""
    process = subprocess.Popen([sys.executable, "-c", RUN, STUBBORN, *map(str, files)])
    wait_until(lambda: all(file.exists() for file in files) or process.poll() is not None)
    assert process.poll() is None
    return process


def mira_serve(recipe: Recipe, *words: str) -> int:
    try:
        return main(["serve", str(recipe.path), *words])
    finally:  # its log goes to this test's stderr
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def refused(recipe: Recipe, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns what `mira serve` says to its user, who can put it right."""
    assert mira_serve(recipe, *words) == 2
    return capsys.readouterr().err


def test_mira_serve_unknown_group_names_the_nearest(
    judged_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(judged_recipe(**DISTILLED), capsys, "--group", "text-note")
    assert "--group 'text-note': no such source group" in message
    assert GROUP in message


def test_mira_serve_scorer_not_distilled_yet_says_how(
    judged_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(judged_recipe(**DISTILLED), capsys, "--group", GROUP)
    assert f"scorers/{RUBRIC}/{GROUP}/scorer.json: no scorer is here" in message
    assert "mira distill" in message


def test_mira_serve_scorer_still_being_made_is_refused(
    judged_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = judged_recipe(**DISTILLED)
    folder = recipe.run_folder / layout.scorer(recipe.rubric, GROUP)
    folder.mkdir(parents=True)
    CARD.save(folder)
    assert f"{folder}: this scorer is not finished" in refused(recipe, capsys, "--group", GROUP)


def test_mira_serve_rule_judge_is_told_from_a_model(
    judged_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(judged_recipe(), capsys, "--group", GROUP)
    assert "score.engine=rule_judge is no model" in message
    assert "mira judge-server" in message


def test_mira_serve_model_that_the_recipe_names_is_served(
    judged_recipe: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    score = {"engine": "vllm", "model_path": str(tmp_path / "MIRA-Text"), "max_tokens": 2048}
    assert mira_serve(judged_recipe(score=score), "--group", GROUP) == 0
    line = shlex.split(capsys.readouterr().out.splitlines()[0])
    assert line[line.index("--model") + 1] == str(tmp_path / "MIRA-Text")
    assert line[line.index("--served-model-name") + 1] == "MIRA-Text"


def write_card(workspace: Workspace, settings: Any) -> WorkResult:
    """Writes what of a scorer `mira serve` looks at."""
    CARD.save(workspace.folder)
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def test_mira_serve_distilled_scorer_is_served_as_its_card_says(
    judged_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = judged_recipe(**DISTILLED)
    folder = layout.scorer(recipe.rubric, GROUP)
    work = f"{__name__}:write_card"
    unit = Unit(stage="distill", name=GROUP, folder=folder, version=1, config={}, work=work)
    run_unit(unit, Run(folder=recipe.run_folder), Resources())

    words = ["--group", GROUP, "--gpus", "0", "--port", "8101", "--vllm", "--dtype float32"]
    assert mira_serve(recipe, *words) == 0
    lines = capsys.readouterr().out.splitlines()
    line = shlex.split(lines[0])
    assert line[line.index("--model") + 1] == str(recipe.run_folder / folder / EXPORT)
    assert line[line.index("--served-model-name") + 1] == CARD.served_model_name
    assert line[line.index("--max-model-len") + 1] == "700"
    assert line[-2:] == ["--dtype", "float32"]
    assert "endpoints: [http://127.0.0.1:8101/v1]" in lines[-1]
