"""Names and paths with blanks, quotes, `$()` and newlines: refused, or handed on as they are.

From the files that hold them to the shell that runs what `mira submit --scripts` wrote and printed.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # OmegaConf brings it
from job_runs import new_job_run
from slurm_stubs import SlurmStubs
from submitted_smoke import CLUSTERS

from mira_megatron.cli import main
from mira_megatron.config import load_recipe
from mira_megatron.launchers.cluster import load_cluster
from mira_megatron.pipeline import recipe_units

TEXTS = {
    "blank": "a b",
    "quote": "a'; touch gone; '",
    "double_quote": 'a"; touch gone; "',
    "substitution": "$(touch gone)",
    "backquotes": "`touch gone`",
    "variable": "a$HOME",
    "newline": "a\n#SBATCH --wrap=gone\ntouch gone",
    "carriage_return": "a\rtouch gone",
    "option": "--wrap=gone",
    "semicolon": "a;touch gone",
}
ONE_MACHINE = CLUSTERS / "one_machine.yaml"


def cluster(folder: Path, **changes: Any) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(ONE_MACHINE.read_text()), **changes}))
    return path


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_names_of_a_cluster_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    limits = dict.fromkeys(("stage", "gpu", "serve", "train"), "01:00:00")
    wrong: list[dict[str, Any]] = [
        *({name: text} for name in ("name", "partition", "account", "qos", "reservation")),
        {"stages": {"score": {"partition": text}}},
        {"stages": {"score": {"time": text}}},
        {"stages": {text: {"cpus": 1}}},
        {"time_limits": {**limits, "stage": text}},
        {"environment": [text]},
        {"extra_sbatch": [text]},
        {"extra_sbatch": [f"--comment={text}\n"]},
        {"container_runtime": text},
    ]
    for changes in wrong:
        with pytest.raises(ValueError, match=r"cluster\.yaml"):
            load_cluster(cluster(tmp_path, **changes))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_names_of_a_recipe_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    path = new_job_run(tmp_path).recipe.path
    values = yaml.safe_load(path.read_text())
    notes = values["sources"]["notes"]
    wrong: list[dict[str, Any]] = [
        {"sources": {text: notes}},
        {"sources": {"notes": {**notes, "group": f"text-{text}"}}},
        {"rubric": text},
        {"arms": {text: {"score": "t", "scope": "group"}}},
    ]
    for changes in wrong:
        path.write_text(yaml.safe_dump({**values, **changes}))
        with pytest.raises(ValueError, match="is no name"):
            recipe_units(load_recipe(path))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_paths_and_settings_reach_the_job_as_they_are_or_are_refused(
    tmp_path: Path,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The recipe's folder, the run folder, the working directory and an override hold the text."""
    folder = tmp_path / text
    folder.mkdir()
    run = new_job_run(folder)
    monkeypatch.chdir(folder)
    stubs = SlurmStubs.write(tmp_path / "bin")
    monkeypatch.setenv("PATH", stubs.environment["PATH"])
    words = ["submit", str(run.recipe.path), f"sources.notes.fields.text={json.dumps(text)}"]
    code = main([*words, "--cluster", str(cluster(tmp_path)), "--scripts"])
    said = capsys.readouterr()
    if not text.isprintable() or '"' in text:
        assert code == 2
        assert "cannot hold this path" in " ".join(said.err.split())
        return
    assert code == 0, said.err
    subprocess.run(["bash", "-euc", said.out], env=stubs.environment, check=True)
    sent = [json.loads(line)[-1] for line in stubs.lines("sbatch.jsonl")]
    assert sent
    for script in sent:
        _run_script(Path(script), stubs)
        cwd, told, _ = json.loads((stubs.folder / "srun.json").read_text())
        assert cwd == str(folder)
        assert told[-1] == str(Path(script).with_name("job.json"))
        assert json.loads(Path(told[-1]).read_bytes())["overrides"] == words[2:]
    assert not list(tmp_path.rglob("gone"))


def _run_script(script: Path, stubs: SlurmStubs) -> None:
    options = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    # As SLURM reads them: a line is an option, or several words of one in quotes.
    assert all(len(shlex.split(line)) == 2 for line in options)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[1-2]"}
    subprocess.run(["bash", script], env={**stubs.environment, **slurm}, check=True)
