"""The benchmark and the corpora of the ablation on a laptop: recipes/ablation_mini/."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zstandard

from mira_megatron.config import load_recipe
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.mbpp import Mbpp
from mira_megatron.eval.mbpp_oracles import ANY_ANSWER
from mira_megatron.eval.mbpp_prompts import mbpp_prompt
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.suite import load_suite, open_benchmark
from mira_megatron.eval.verdicts import Status
from mira_megatron.pipeline import recipe_units

ROOT = Path(__file__).parents[3]
CORPORA = ROOT / "recipes" / "ablation_mini"
TASKS = ROOT / "eval" / "mini" / "functions.jsonl"

# Step -> an argument, and what it gives, by hand.
BY_HAND: Mapping[str, tuple[Any, Any]] = {
    "increment": (5, 6),
    "decrement": (5, 4),
    "add_ten": (5, 15),
    "double": (5, 10),
    "triple": (5, 15),
    "halve": (-5, -3),
    "last_digit": (47, 7),
    "square": (-3, 9),
    "negate": (3, -3),
    "absolute": (-3, 3),
    "at_most": (120, 100),
    "at_least": (-3, 0),
    "is_positive": (0, False),
    "is_negative": (-1, True),
    "is_even": (3, False),
    "is_large": (50, False),
    "keep_positive": ([1, 0, -1], [1]),
    "keep_negative": ([1, 0, -1], [-1]),
    "keep_even": ([1, 2, -4], [2, -4]),
    "keep_odd": ([1, 2, -3], [1, -3]),
    "increment_all": ([1, -1], [2, 0]),
    "double_all": ([1, -1], [2, -2]),
    "square_all": ([3, -1], [9, 1]),
    "negate_all": ([3, -1], [-3, 1]),
    "absolute_all": ([3, -1], [3, 1]),
    "sort": ([2, 3, 1], [1, 2, 3]),
    "sort_down": ([2, 3, 1], [3, 2, 1]),
    "reverse": ([2, 3, 1], [1, 3, 2]),
    "first_three": ([4, 2, 3, 1], [4, 2, 3]),
    "last_two": ([4, 2, 3, 1], [3, 1]),
    "without_first": ([2, 3, 1], [3, 1]),
    "without_last": ([2, 3, 1], [2, 3]),
    "total": ([2, 3], 5),
    "count": ([2, 3, 9], 3),
    "largest": ([], 0),
    "smallest": ([4, 2, 3], 2),
    "upper": ("aB", "AB"),
    "lower": ("aB", "ab"),
    "swap_case": ("aB", "Ab"),
    "turn": ("abc", "cba"),
    "start": ("abcde", "abcd"),
    "end": ("abcde", "cde"),
    "twice": ("ab", "abab"),
    "without_spaces": ("a b c", "abc"),
    "dashed": ("a b c", "a-b-c"),
    "shout": ("hey", "hey!"),
    "in_brackets": ("hey", "(hey)"),
    "without_end": ("hey", "he"),
    "length": ("abc", 3),
    "count_words": ("two words", 2),
    "count_e": ("eleven", 3),
    "is_upper": ("Ab", False),
    "has_space": ("a b", True),
}


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The scripts' modules, which lie beside each other and in no package."""
    names = ("small_functions", "make_functions")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CORPORA))
        yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


def lines(path: Path) -> bytes:
    """What a file holds, unpacked."""
    content = path.read_bytes()
    is_packed = path.suffix == ".zst"
    return zstandard.ZstdDecompressor().decompress(content) if is_packed else content


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(path).splitlines()]


def shape(code: str) -> str:
    """A function without its names and docstring: equal for all that do the same alike."""
    tree = ast.parse(code)  # documents may have it twice
    function = next(each for each in tree.body if isinstance(each, ast.FunctionDef))
    parameter = function.args.args[0].arg
    body = function.body[1:] if ast.get_docstring(function) else function.body
    for node in (node for statement in body for node in ast.walk(statement)):
        if isinstance(node, ast.Name) and node.id == parameter:
            node.id = "parameter"
    return "\n".join(map(ast.unparse, body))


def test_steps_do_what_was_worked_out_by_hand(scripts: dict[str, ModuleType]) -> None:
    module = scripts["small_functions"]
    steps = {step.name: step for step in module.STEPS}
    assert steps.keys() == BY_HAND.keys()
    for name, (argument, expected) in BY_HAND.items():
        code = module.code_of((steps[name],), "solve", "given")
        assert (name, module.result_of(code, "solve", argument)) == (name, expected)


def test_committed_files_are_what_the_script_writes(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    scripts["make_functions"].main(["--output", str(tmp_path), "--tasks", str(tmp_path)])
    written = sorted(tmp_path.iterdir())
    committed = {path.name: path for path in [*CORPORA.glob("*.jsonl*"), TASKS]}
    assert [path.name for path in written] == sorted(committed)
    for path in written:
        assert lines(path) == lines(committed[path.name]), path.name


def test_no_solution_is_in_two_files() -> None:
    codes = {"functions": [row["canonical_solution"] for row in rows(TASKS)]}
    for name, field in (("instructions", "output"), ("mix_questions", "answer")):
        found = [row[field] for row in rows(CORPORA / f"{name}.jsonl.zst")]
        codes[name] = [text.removeprefix("```python\n").removesuffix("```") for text in found]
    for name in ("mix", "before"):
        codes[name] = [row["text"] for row in rows(CORPORA / f"{name}.jsonl.zst")]
    owner: dict[str, str] = {}
    for name, found in codes.items():
        for code in found:
            assert owner.setdefault(shape(code), name) == name, code
    assert list(owner.values()).count("functions") == len(codes["functions"])


def test_instructions_are_asked_as_the_benchmark_asks_a_chat() -> None:
    for row in rows(CORPORA / "instructions.jsonl.zst"):
        docstring = row["input"].partition("```python\n")[2].removesuffix("\n```")
        asked = mbpp_prompt(docstring, Style.CHAT, has_prefill=False)
        assert asked.messages[0]["content"] == row["input"]


def test_tasks_follow_no_rule_of_a_published_task(tmp_path: Path) -> None:
    suite = load_suite(ROOT / "eval" / "suites" / "mini.yaml", TASKS.parent)
    benchmark = open_benchmark(suite.entry("small_functions"), tmp_path)
    assert isinstance(benchmark, Mbpp)
    assert len(benchmark.tasks) >= 120
    for task, row in zip(benchmark.tasks.values(), rows(TASKS), strict=True):
        assert task.entry_point not in ANY_ANSWER
        assert [list(each) for each in task.inputs] == [row["base_input"], row["plus_input"]]
        assert row["assertion"] in row["prompt"]


def test_a_task_tells_its_program_from_one_with_a_step_less(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    benchmark = Mbpp(TASKS, tmp_path)
    long = [name for name, task in benchmark.tasks.items() if task.solution.count("    ") > 1]
    for task_id in long[:3]:
        gold = benchmark.gold(task_id)
        *head, _, returned = gold.splitlines()
        short = "\n".join([*head, returned.replace("result", head[-1].split("(")[-1][:-2])])
        right, wrong = (benchmark.judge(sandbox, task_id, code) for code in (gold, short))
        assert {status for status, _ in right.statuses.values()} == {Status.PASS}
        assert Status.PASS not in {status for status, _ in wrong.statuses.values()}


def test_base_recipe_ends_with_a_model_and_no_page() -> None:
    recipe = load_recipe(ROOT / "recipes" / "ablation_mini_base.yaml")
    stages = {unit.stage for unit in recipe_units(recipe)}
    assert "midtrain" in stages
    assert "report" not in stages


def test_scores_are_not_named_after_mbpp(tmp_path: Path) -> None:
    suite = load_suite(ROOT / "eval" / "suites" / "mini.yaml", TASKS.parent)
    benchmark = open_benchmark(suite.entry("small_functions"), tmp_path)
    assert benchmark.verdict_names == ("small_functions", "small_functions_plus")
