"""The shipped suite over a few tasks of each of its benchmarks, and answers to them, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from bigcodebench_files import SOLUTION, SYSTEM_PYTHON, bcb_row, write_bcb
from eval_files import ADD, HALF, MULTIPL_E, write_mbpp, write_multipl_e
from livecodebench_files import RISES, lcb_row, write_lcb
from sql_files import write_database, write_json_file

SHIPPED = Path(__file__).parents[2] / "eval/suites/mira9.yaml"
ENTRIES: tuple[str, ...] = tuple(yaml.safe_load(SHIPPED.read_text())["benchmarks"])
NUM_SAMPLES = 8  # of LiveCodeBench's tasks, as shipped
# 2 tasks of each benchmark, 1 of each language.
NUM_ANSWERS = 2 + 2 + 2 * NUM_SAMPLES + len(MULTIPL_E) + 2 + 2

# What the answers below come to. PHP's is wrong, half's are true for one input, one query is of
# another column.
SCORES: Mapping[str, float] = {
    "mbpp": 100.0,
    "mbpp_plus": 50.0,
    "bigcodebench_full": 50.0,
    "bigcodebench_hard": 0.0,
    "livecodebench": 50.0,
    **{f"multipl_e_{language}": 100.0 * (language != "php") for language in MULTIPL_E},
    "spider": 50.0,
    "bird": 100.0,
}
_ADD = "def add(a, b):\n    return a + b\n"
_LISTED = f"import json\ndef task_func(text):\n{SOLUTION}"
# Words of a prompt -> what a chat's block holds, and how a base model goes on.
_ANSWERS: Mapping[str, tuple[str, str, str]] = {
    "Add two": ("python", _ADD, _ADD),
    "Half of": ("python", "def half(a):\n    return 0.5\n", "def half(a):\n    return 0.5\n"),
    "sum of a list": ("python", _LISTED, SOLUTION),
    "most of a list": ("python", _LISTED, SOLUTION),
    "Print the sum": ("python", "input()\nprint(sum(map(int, input().split())))\n", ""),
    "Give the first": (
        "python",
        "class Solution:\n    def first(self, nums, k):\n        return []\n",
        "",
    ),
    "What are they called?": ("sql", "SELECT name FROM singer", " name FROM singer;"),
    "How old are they?": ("sql", "SELECT name FROM singer", " name FROM singer;"),
    "Where are they?": ("sql", "SELECT city FROM stadium", " city FROM stadium;"),
    "Which stadiums?": ("sql", "SELECT id FROM stadium", " id FROM stadium;"),
}


def write_whole_suite(folder: Path, *, real_data: Path | None = None, **sampling: Any) -> Path:
    """Writes suite.yaml and its data below `folder`; returns the suite's path.

    MBPP and MultiPL-E are those of `real_data` where it is given; `sampling` changes all profiles.
    """
    suite = yaml.safe_load(SHIPPED.read_text())
    suite["data_folder"] = str(folder / "data")
    suite["benchmarks"]["bigcodebench"]["options"]["python"] = str(SYSTEM_PYTHON)
    for profile in suite["sampling"].values():
        profile |= sampling
    _write_data(folder / "data", suite["benchmarks"], real_data)
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    return path


def answer_to(asked: str) -> str:
    """Returns what the model says: to a completion how the text goes on, to a chat a block."""
    for language, (prompt, right, wrong, _) in MULTIPL_E.items():
        if prompt.strip() in asked:
            body = wrong if language == "php" else right
            if asked.strip() == prompt.strip():
                return body
            return f"```\n{prompt}{body}\n{'' if body.endswith('}') else _closing(language)}```"
    name, program, going_on = next(answer for words, answer in _ANSWERS.items() if words in asked)
    if _is_completion(asked):
        return going_on or f"{program}\n### Question\n"
    return f"<think>{asked}</think>Sure!\n```{name}\n{program}\n```\nDone."


def _is_completion(asked: str) -> bool:
    """Returns whether the text is one to go on with, by how it ends."""
    ends = ("SELECT", '"""', "### Answer")
    return asked.rstrip().endswith(ends)


def _closing(language: str) -> str:
    return {"cpp": "}\n", "cs": "    }\n}\n", "java": "    }\n}\n", "sh": "}\n"}.get(language, "")


def _write_data(folder: Path, entries: Mapping[str, Any], real_data: Path | None) -> None:
    folder.mkdir()
    files = {name: folder / fields["file"] for name, fields in entries.items()}
    for path in files.values():
        path.parent.mkdir(exist_ok=True)
    for name, path in files.items():
        if real_data is not None and (real_data / path.relative_to(folder)).is_file():
            path.symlink_to(real_data / path.relative_to(folder))
        elif name == "mbpp":
            write_mbpp(path, ADD, HALF)
        elif name.startswith("multipl_e"):
            write_multipl_e(path, entries[name]["language"])
    _write_bigcodebench(files["bigcodebench"])
    stdin = lcb_row("abc1_a") | {"question_content": "Print the sum."}
    called = lcb_row("3001", RISES, function="first") | {"question_content": "Give the first."}
    write_lcb(files["livecodebench"], stdin, called)
    _write_sql(files["spider"], "database", "query", "How old are they?", "age FROM singer")
    _write_sql(files["bird"], "dev_databases", "SQL", "Where are they?", "city FROM stadium")


def _write_bigcodebench(path: Path) -> None:
    hard = "BigCodeBench/8"
    tests = str(bcb_row()["test"]).replace(", 7)", ", 4)")  # of the larger one, not of the sum
    rows = []
    for row, asked in ((bcb_row(), "sum of a list"), (bcb_row(hard, test=tests), "most of a list")):
        row["instruct_prompt"] = f"The {asked} in JSON."
        row["complete_prompt"] = row["complete_prompt"].replace("Sum of a list", f"The {asked}")
        rows.append(row)
    write_bcb(path, *rows)
    write_bcb(path.with_name("bigcodebench-hard-v0.1.4.parquet"), {"task_id": hard})


def _write_sql(path: Path, databases: str, query: str, asked: str, statement: str) -> None:
    write_database(path.parent / databases / "concerts" / "concerts.sqlite")
    questions = {"What are they called?": "name FROM singer", asked: statement}
    tasks = [
        {
            "question_id": number,
            "db_id": "concerts",
            "question": question,
            "evidence": "old means age > 50",
            "difficulty": "simple",
            query: f"SELECT {each}",
        }
        for number, (question, each) in enumerate(questions.items())
    ]
    write_json_file(path, tasks)


def results_of(output: Path) -> dict[str, Any]:
    """Returns results.json by entry, but for what tells one run from another of the same answers.

    The lines of generations.jsonl stand in the order in which they came.
    """
    found = {}
    for path in sorted(output.glob("*/results.json")):
        results = json.loads(path.read_bytes())
        for name in ("predictions", "num_resumed", "num_cached", "num_run"):
            del results[name]
        found[path.parent.name] = results
    return found
