"""The stage `eval` of a recipe: a tiny model answers a tiny benchmark, and its programs are run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from eval_endpoint import EvalEndpoint, serving
from eval_files import write_mbpp
from instruct_runs import recipe_of as instruct_recipe
from small_run import finish
from tiny_scorer import write_tiny_scorer

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.eval.comparison.outputs import read_evaluation
from mira_megatron.eval.evaluation import missing_data, units
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.file_lock import LockHeldError
from mira_megatron.manifest import Manifest, read_manifest
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources, Run, Unit, run_unit, unit_state

SMOKE = Path(__file__).parents[3] / "recipes" / "smoke.yaml"
PROGRAMS = {
    "Add two": "def add(a, b):\n    return a + b\n",
    "Half of": "def half(a):\n    return 0.5\n",
}
# Runs the first unit, and ends as kill -9 does once so many answers are kept.
_KILLED = """
import os, pathlib, signal, sys
from mira_megatron.config import load_recipe
from mira_megatron.eval.evaluation import units
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.eval.generation.generations import GenerationFile
append, kept = GenerationFile.append, []
def kept_or_killed(self, generation):
    append(self, generation)
    kept.append(generation)
    if len(kept) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
GenerationFile.append = kept_or_killed
recipe = load_recipe(pathlib.Path(sys.argv[2]))
run_unit(units(recipe)[0], Run(folder=recipe.run_folder), Resources())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    return write_tiny_scorer(folder, ("depth",), is_moe=False, num_steps=1)


def write_suite(folder: Path, **sampling: Any) -> None:
    drawn = {"temperature": 0.8, "top_p": 0.9, "num_samples": 2, "max_tokens": 12, "source": "us"}
    entry = {"kind": "mbpp", "category": "code", "file": "mbpp.jsonl", "protocol": "p"}
    suite = {
        "name": "tiny",
        "sampling": {"drawn": {**drawn, **sampling}},
        "benchmarks": {"mbpp": {**entry, "sampling": "drawn"}},
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    write_mbpp(folder / "mbpp.jsonl")


def recipe_of(folder: Path, model: Path | None = None, **settings: Any) -> Recipe:
    """Returns a recipe of one arm with two seeds and the base, its suite and its models."""
    section = {
        "suite": "suite.yaml",
        "style": "completion",
        "engine": "transformers",
        "dtype": "float32",
        "data_folder": ".",
        "batch_size": 1,
        **settings,
    }
    values = {
        "run_folder": str(folder / "run"),
        "arms": {"a": {}},
        "midtrain": {"base": str(model or "base")},
        "ablation": {"seeds": [3, 1], "base_arm": "z"},
        "eval": section,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    if model is not None:
        for name in ("a", "a.seed1"):
            trained = folder / "run" / layout.checkpoints(name)
            if not trained.exists():
                shutil.copytree(model, trained / layout.HF_EXPORT)
                finish(trained, "midtrain", name)
    return load_recipe(path)


def unit_of(recipe: Recipe, name: str = "a") -> Unit:
    return next(unit for unit in units(recipe) if unit.name == name)


def evaluated(recipe: Recipe, name: str = "a") -> Manifest:
    return run_unit(unit_of(recipe, name), Run(folder=recipe.run_folder), Resources())


def results(recipe: Recipe, name: str = "a") -> Any:
    path = recipe.run_folder / layout.evaluation(name) / "mbpp/results.json"
    return json.loads(path.read_bytes())


def test_models_are_every_arm_and_seed_and_the_base_once(tmp_path: Path) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path)
    found = units(recipe)
    assert [(unit.name, unit.folder, unit.upstream) for unit in found] == [
        ("a", "eval/a", ("checkpoints/a",)),
        ("a.seed1", "eval/a.seed1", ("checkpoints/a.seed1",)),
        ("z", "eval/z", ()),
    ]
    assert [unit.settings.export for unit in found] == [  # type: ignore[attr-defined]
        recipe.run_folder / "checkpoints/a/hf",
        recipe.run_folder / "checkpoints/a.seed1/hf",
        tmp_path / "base",
    ]


def test_models_are_the_tuned_ones_where_they_are_tuned(tmp_path: Path) -> None:
    write_suite(tmp_path)
    section = {"suite": "suite.yaml", "style": "chat", "engine": "vllm", "data_folder": "."}
    recipe = instruct_recipe(tmp_path, arms=("a", "b"))
    recipe = replace(recipe, values={**recipe.values, "eval": section})
    assert [(unit.name, unit.upstream) for unit in units(recipe)] == [
        ("a", ("instruct/a",)),
        ("b", ("instruct/b",)),
    ]


def test_plan_does_not_look_into_data_that_it_is_to_do_without(tmp_path: Path) -> None:
    write_suite(tmp_path)
    whole = recipe_of(tmp_path)
    assert missing_data(whole) == {}
    (tmp_path / "mbpp.jsonl").write_text("no JSON\n")
    assert missing_data(whole) == {}  # it is there, and wrong
    (tmp_path / "mbpp.jsonl").unlink()
    assert list(missing_data(whole)) == ["mbpp"]
    assert f"{tmp_path / 'mbpp.jsonl'}: the data file" in missing_data(whole)["mbpp"]
    shown = replace(whole, is_provisional=True)
    with pytest.raises(FileNotFoundError, match=r"mbpp\.jsonl: the data file"):
        units(shown)
    planned = units(replace(shown, without_data=frozenset(["mbpp"])))
    assert [unit.config for unit in planned] == [unit.config for unit in units(whole)]
    for model in ("a", "a.seed1", "z"):
        finish(whole.run_folder / layout.evaluation(model), "eval", model)
    assert missing_data(whole) == {}


def test_killed_generation_goes_on_and_leaves_the_same_bytes(
    sandbox: Sandbox, tmp_path: Path, model: Path
) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path, model)
    folder = recipe.run_folder / "eval/a"
    words = [sys.executable, "-c", _KILLED, "3", str(recipe.path)]
    killed = subprocess.run(words, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    lines = (folder / "mbpp/generations.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    assert read_manifest(folder) is None
    with (folder / "mbpp/generations.jsonl").open("ab") as file:
        file.write(b'{"task_id": "torn')

    manifest = evaluated(recipe)

    kept = (folder / "mbpp/generations.jsonl").read_bytes().splitlines(keepends=True)
    assert set(lines) < set(kept)
    tasks = [json.loads(line)["task_id"] for line in kept]
    assert tasks == ["Mbpp/1001", "Mbpp/1001", "Mbpp/1002", "Mbpp/1002"]
    assert [part.path for part in manifest.parts] == [
        *(f"mbpp/{name}" for name in ("controls.json", "generations.jsonl", "results.json")),
        *(f"mbpp/{name}" for name in ("tasks.jsonl", "verdicts.jsonl")),
        "suite.json",
    ]
    assert (manifest.counts.num_in, manifest.counts.num_out) == (4, 4)
    written = b"".join((folder / part.path).read_bytes() for part in manifest.parts)
    assert str(tmp_path).encode() not in written
    assert list(read_evaluation(folder).outcomes) == ["mbpp", "mbpp_plus"]
    # The seed's model is the same here, so that nothing else can tell the two apart.
    alike = evaluated(recipe, "a.seed1")
    mine, other = ({part.path: part.digest for part in each.parts} for each in (manifest, alike))
    assert {path for path in mine if mine[path] != other[path]} == {"suite.json"}
    assert evaluated(recipe) == manifest


def test_served_model_is_graded_and_no_address_is_written(
    sandbox: Sandbox, tmp_path: Path, model: Path
) -> None:
    write_suite(tmp_path, temperature=0, num_samples=1)

    def answer(asked: str) -> str:
        return next(program for words, program in PROGRAMS.items() if words in asked)

    with serving(EvalEndpoint(answer_of=answer, models=("z",))) as endpoint:
        recipe = recipe_of(tmp_path, model, engine="endpoint", endpoints=[endpoint.url])
        manifest = evaluated(recipe, "z")
        num_asked = len(endpoint.bodies)
        assert evaluated(recipe, "z") == manifest
        with pytest.raises(ValueError, match="serves z, not 'a'"):
            evaluated(recipe)
    assert (num_asked, len(endpoint.bodies)) == (2, 2)
    scores = {name: score["pass@1"] for name, score in results(recipe, "z")["scores"].items()}
    assert scores == {"mbpp": 100.0, "mbpp_plus": 50.0}
    assert not {"num_resumed", "num_cached", "num_run"} & set(results(recipe, "z"))
    assert "base weights" in manifest.inputs
    folder = recipe.run_folder / "eval/z"
    written = b"".join((folder / part.path).read_bytes() for part in manifest.parts)
    assert b"127.0.0.1" not in written
    assert b"/weights" not in written


def test_unit_is_another_one_for_other_data_and_refused_for_another_style(
    tmp_path: Path, model: Path
) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path, model)
    unit = unit_of(recipe)
    assert unit.raw_files is not None
    before = unit.raw_files()
    assert before["grader of mbpp"] == "mbpp/1"
    (tmp_path / "mbpp.jsonl").write_text((tmp_path / "mbpp.jsonl").read_text().replace("two", "2"))
    after = unit.raw_files()
    assert {name for name in before if before[name] != after[name]} == {"data of mbpp"}
    for settings in ({"style": "chat"}, {"limit": 1}, {"engine": "vllm"}):
        assert unit_of(recipe_of(tmp_path, **settings)).config != unit.config
    for settings in ({"min_isolation": 1}, {"batch_size": 4}, {"tensor_parallel_size": 2}):
        assert unit_of(recipe_of(tmp_path, **settings)).config == unit.config  # type: ignore[arg-type]
    write_suite(tmp_path, max_tokens=13)
    assert unit_of(recipe).config != unit.config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "other.yaml"}, "other.yaml: no such file"),
        ({"benchmarks": ["mbbp"]}, "no benchmark 'mbbp'; it has mbpp"),
        ({"style": "base"}, "style='base' must be one of completion, chat"),
        ({"engine": "endpoint"}, "engine=endpoint asks endpoints"),
        ({"endpoints": ["http://a/v1"]}, "engine=endpoint asks endpoints"),
        ({"limit": 0}, "limit=0 must be a number above 0"),
        ({"benchmarks": []}, "must name at least one"),
        ({"data_folder": "elsewhere"}, "eval.data_folder"),
        ({"sweet": 1}, "unknown key 'sweet'"),
    ],
)
def test_setting_that_is_wrong_fails_before_anything_is_trained(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    write_suite(tmp_path)
    recipe = replace(recipe_of(tmp_path, **settings), is_provisional=True)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        units(recipe)
    assert message in str(refused.value)


@pytest.mark.parametrize("content", ["", "{}\n", "no JSON\n"])
def test_data_that_is_no_benchmark_fails_before_anything_is_trained(
    tmp_path: Path, content: str
) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path)
    (tmp_path / "mbpp.jsonl").write_text(content)
    assert len(units(recipe)) == 3  # a run of this stage says it itself
    with pytest.raises(ValueError, match=r"mbpp\.jsonl"):
        units(replace(recipe, is_provisional=True))


def test_run_without_a_sandbox_says_so_before_anything_is_trained(tmp_path: Path) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "mira_megatron.cli", "run", str(recipe.path)],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "eval: what models write is run here at the end" in ended.stderr
    assert "no sandbox of level 3 here" in ended.stderr
    assert not recipe.run_folder.exists()


def test_suite_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    (tmp_path / "suite.yaml").write_text("{")
    with pytest.raises(ValueError, match=r"suite\.yaml: not YAML"):
        units(recipe)


def test_recipe_that_trains_nothing_is_refused(tmp_path: Path) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path)
    values = {name: value for name, value in recipe.values.items() if name != "midtrain"}
    with pytest.raises(ValueError, match="needs a section midtrain or instruct_sft"):
        units(replace(recipe, values=values))


def test_models_that_cannot_be_evaluated_are_told_once_the_others_are(tmp_path: Path) -> None:
    write_suite(tmp_path)
    section = f"suite: {tmp_path}/suite.yaml, data_folder: {tmp_path}, style: chat, engine: vllm"
    arms = "{base: {score: smoke, scope: source}, last: {score: smoke, scope: source}}"
    words = (f"run_folder={tmp_path}/run", f"arms={arms}", f"eval={{{section}}}")
    recipe = load_recipe(SMOKE, words)
    seen = []

    def fail_twice(unit: Unit, run: Run, resources: Resources) -> None:
        seen.append(unit.name)
        if unit.name == "base":
            raise ValueError("no sandbox of level 3 here")
        if unit.name == "last":
            raise FileNotFoundError("no data")

    with pytest.raises(ValueError, match=r"^no sandbox of level 3 here; no data$"):
        run_stages(recipe, ["eval"], Resources(), run_one=fail_twice)
    assert seen == ["base", "last", "mira_group"]

    def busy(unit: Unit, run: Run, resources: Resources) -> None:
        raise LockHeldError("another process")

    with pytest.raises(LockHeldError):
        run_stages(recipe, ["eval"], Resources(), run_one=busy)


def test_model_without_export_or_room_or_template_says_so(
    sandbox: Sandbox, tmp_path: Path, model: Path
) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path, model, max_model_len=12)
    with pytest.raises(ValueError, match="max_tokens=12 leaves no room for a prompt in the 12"):
        evaluated(recipe)
    assert unit_state(unit_of(recipe), Run(folder=recipe.run_folder)) == "unfinished"

    bare = shutil.copytree(model, tmp_path / "bare")
    for path in bare.glob("*template*"):
        path.unlink()
    config = json.loads((bare / "tokenizer_config.json").read_bytes())
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    recipe = recipe_of(tmp_path, bare, style="chat")
    with pytest.raises(ValueError, match=r"has no chat template.*eval.style=completion"):
        evaluated(recipe, "z")

    (tmp_path / "bare/config.json").unlink()
    with pytest.raises(ValueError, match=r"bare: no model to be asked \(no config.json\)"):
        evaluated(recipe, "z")


def test_prompt_without_room_for_its_answer_has_no_text(
    sandbox: Sandbox, tmp_path: Path, model: Path
) -> None:
    write_suite(tmp_path)
    recipe = recipe_of(tmp_path, model)
    evaluated(recipe, "z")
    lines = (recipe.run_folder / "eval/z/mbpp/generations.jsonl").read_text().splitlines()
    longest = max(json.loads(line)["num_prompt_tokens"] for line in lines)
    # The longer prompt fits, and leaves 11 tokens of the 12 that an answer may have.
    manifest = evaluated(recipe_of(tmp_path, model, max_model_len=longest + 11))
    assert (manifest.counts.num_in, manifest.counts.dropped) == (4, {"too_long": 2})
    assert results(recipe)["scores"]["mbpp"]["reasons"]["too_long"] == 2
