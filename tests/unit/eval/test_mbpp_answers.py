from __future__ import annotations

from pathlib import Path

import pytest
from eval_files import write_mbpp

from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.mbpp import Mbpp
from mira_megatron.eval.verdicts import Extraction, Form, Sample

PROGRAM = "def add(a, b):\n    return a + b\n"


@pytest.fixture
def benchmark(tmp_path: Path) -> Mbpp:
    return Mbpp(write_mbpp(tmp_path / "tasks.jsonl"), tmp_path)


def extracted(benchmark: Mbpp, text: str, form: Form, *, is_raw: bool = True) -> Extraction:
    sample = Sample(task_id="Mbpp/1001", number=0, text=text, form=form, is_raw=is_raw)
    return benchmark.extract(sample)


def test_raw_completion_is_sanitized_and_a_prediction_is_not(benchmark: Mbpp) -> None:
    text = f"{PROGRAM}print(add(1, 2))\n"

    assert extracted(benchmark, text, Form.COMPLETION).code == PROGRAM
    as_it_is = extracted(benchmark, text, Form.COMPLETION, is_raw=False).code
    assert as_it_is is not None
    assert as_it_is.endswith(text)


def test_answer_gives_its_block_or_itself(benchmark: Mbpp) -> None:
    answer = f"<think>add?</think>Here:\n```python\n{PROGRAM}\nassert add(1, 2) == 3\n```\nBye."

    assert extracted(benchmark, answer, Form.ANSWER).code == PROGRAM
    assert extracted(benchmark, PROGRAM, Form.ANSWER).code == PROGRAM


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot help.", "unparsable"),
        ("```python\ndef add(a, b)\n```", "unparsable"),
        ("<think>So, def add", "unfinished_thought"),
        ("\n", "empty"),
    ],
)
def test_answer_without_a_program_says_why(benchmark: Mbpp, text: str, reason: str) -> None:
    assert extracted(benchmark, text, Form.ANSWER) == Extraction(code=None, reason=reason)


def test_prompts_are_those_of_evalplus(tmp_path: Path) -> None:
    path = write_mbpp(tmp_path / "tasks.jsonl")
    task = '"""\nAdd two numbers.\nassert add(1, 2) == 3\n"""'
    asked = (
        "Please provide a self-contained Python script that solves the following problem in a "
        "markdown code block:\n"
    )

    plain, prefilled = (Mbpp(path, tmp_path, has_prefill=each) for each in (False, True))

    completion = plain.prompt("Mbpp/1001", Style.COMPLETION)
    assert (completion.text, completion.max_tokens) == (f"{task}\n", 768)
    assert completion.stop[1] == "\nassert"
    (message,) = plain.prompt("Mbpp/1001", Style.CHAT).messages
    assert message == {"role": "user", "content": f"{asked}```python\n{task}\n```"}
    begun = prefilled.prompt("Mbpp/1001", Style.CHAT)
    assert begun.messages[0]["content"] == f"{asked}```\n{task}\n```\n"
    assert begun.messages[1] == {
        "role": "assistant",
        "content": "Below is a Python script with a self-contained function that solves the "
        "problem and passes corresponding tests:\n```python\n",
    }
    assert begun.stop == ("\n```\n",)
    templates = {
        each.template for each in (completion, plain.prompt("Mbpp/1001", Style.CHAT), begun)
    }
    assert len(templates) == 3
