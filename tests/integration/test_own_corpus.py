"""docs/bring-your-own-corpus.md, followed to the letter: its files, its commands, its outputs."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml  # OmegaConf brings it
from forked_mira import forked

from mira_megatron.cli import main

GUIDE = Path(__file__).parents[2] / "docs" / "bring-your-own-corpus.md"
CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"
_BLOCK = re.compile(r"```(yaml|python|console)\n(.*?)```", re.DOTALL)
_HEAD = re.compile(r"# ([\w.]+)(?:, a copy of ([\w.]+))?( ?,? ?(?:with these )?in place of .*)?")
_SECONDS = re.compile(r", [\d.]+ s$")
# What is counted without clustering, whose last digits may depend on the processor.
_COUNTED = ("ingest ", "discover ", "adopt ", "decisions.csv: ", "tokens/answers")
_TIMEOUT_SECONDS = 600

pytestmark = pytest.mark.integration  # minutes: it does all that the guide does


def main_in(words: Sequence[str]) -> int:
    """Runs `mira` in the folder that comes before its words."""
    os.chdir(words[0])
    return main(words[1:])


def write_block(folder: Path, text: str) -> None:
    """Writes, adds to or changes the file that a block's first line names."""
    head, content = text.split("\n", 1)
    found = _HEAD.fullmatch(head)
    assert found, f"a block of {GUIDE.name} does not say what file it is: {head}"
    name, original, replaces = found.groups()
    path = folder / name
    if replaces:
        recipe = yaml.safe_load((folder / (original or name)).read_text())
        path.write_text(yaml.safe_dump({**recipe, **yaml.safe_load(content)}, sort_keys=False))
        return
    with path.open("a") as file:
        file.write(content)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def judge_server(port: int) -> Iterator[None]:
    """The rule judge as an endpoint, until the block ends."""
    words = [sys.executable, "-m", "mira_megatron.cli", "judge-server", "--port", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def run(folder: Path, command: str) -> str:
    """Returns what a command of the guide prints; it must end well."""
    program, *words = command.split()
    if program == "mira":
        code, output = forked(main_in, [str(folder), *words], _TIMEOUT_SECONDS)
    else:
        assert program == "python", command
        ended = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True)
        code, output = ended.returncode, ended.stdout + ended.stderr
    assert code == 0, f"{command}\n{output.decode()}"
    return output.decode()


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list[str], str]]:
    """Every command of the guide with the lines that it shows, and what was printed here."""
    if not CORPUS.is_dir():
        pytest.skip(f"{CORPUS}: real data is not on this machine")
    folder = tmp_path_factory.mktemp("guide")
    (folder / "corpus").symlink_to(CORPUS)
    port = free_port()
    text = GUIDE.read_text().replace("8377", str(port))
    results = []
    with judge_server(port):
        for language, block in _BLOCK.findall(text):
            if language != "console":
                write_block(folder, block)
                continue
            for part in block.removeprefix("$ ").split("\n$ "):
                command, *shown = part.strip().splitlines()
                if not command.startswith("mira judge-server"):
                    results.append((command, shown, run(folder, command)))
    return results


def test_guide_of_ones_own_corpus_runs_every_kind_of_command(
    printed: list[tuple[str, list[str], str]],
) -> None:
    words = {" ".join(command.split()[:2]) for command, _, _ in printed}
    stages = {"mira ingest", "mira group", "mira run", "mira rubric", "mira plan", "mira tokens"}
    assert words >= stages | {"mira explain", "mira export", "mira failures", "python scores.py"}


def test_guide_shows_the_counts_that_its_commands_print(
    printed: list[tuple[str, list[str], str]],
) -> None:
    checked = 0
    for command, shown, output in printed:
        for line in shown:
            if line.startswith(_COUNTED):
                assert _SECONDS.sub("", line) in output, f"{command}\n{output}"
                checked += 1
    assert checked >= 11


def test_guides_teacher_behind_an_endpoint_keeps_what_the_rule_judge_kept(
    printed: list[tuple[str, list[str], str]],
) -> None:
    output = next(output for command, _, output in printed if command == "mira run taught.yaml")
    tables = re.split(r"^Arm (\w+) *$", output, flags=re.MULTILINE)[1:]
    kept = {
        arm: re.findall(r"^ (?:airline|problems|solutions) .*", table, re.MULTILINE)
        for arm, table in zip(tables[::2], tables[1::2], strict=True)
    }
    assert len(kept["half"]) == 3
    assert kept["half"] == kept["taught"] != kept["quarter"]


def test_guide_explains_a_record_that_is_there(printed: list[tuple[str, list[str], str]]) -> None:
    (output,) = (output for command, _, output in printed if command.startswith("mira explain"))
    assert "Source airline, group agent-airline: record 2 of it" in output
