from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eval_files import write_mbpp
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.generation.planned import (
    by_request_settings,
    digest_of,
    planned_answers,
)
from mira_megatron.eval.generation.sampling import Sampling, read_sampling
from mira_megatron.eval.mbpp import Mbpp
from mira_megatron.eval.verdicts import Form

HOT = Sampling(name="hot", temperature=0.6, top_p=0.95, num_samples=3)


@pytest.fixture
def benchmark(tmp_path: Path) -> Mbpp:
    return Mbpp(write_mbpp(tmp_path / "tasks.jsonl"), tmp_path)


def test_plan_has_every_sample_of_every_task_with_seeds_of_their_own(benchmark: Mbpp) -> None:
    planned = planned_answers(benchmark, HOT, Style.CHAT)

    assert [(each.task_id, each.number) for each in planned] == [
        (task_id, number) for task_id in benchmark.task_ids for number in range(3)
    ]
    assert len({each.seed for each in planned}) == 6
    assert all(each.form is Form.ANSWER for each in planned)
    assert planned[0].sampling == "temperature=0.6 top_p=0.95 max_tokens=2048"


def test_seed_of_a_sample_is_its_own_whatever_else_is_asked(benchmark: Mbpp) -> None:
    seeds = {each.key: each.seed for each in planned_answers(benchmark, HOT, Style.CHAT)}

    for each in planned_answers(benchmark, HOT, Style.CHAT, limit=1):
        assert seeds[each.key] == each.seed
    others = planned_answers(benchmark, Sampling(**_with(HOT, seed=1)), Style.CHAT)
    assert not set(seeds.values()) & {each.seed for each in others}


def test_greedy_plan_sends_no_seed(benchmark: Mbpp) -> None:
    planned = planned_answers(benchmark, Sampling(name="greedy"), Style.COMPLETION)

    assert [each.seed for each in planned] == [None, None]


def test_profile_overrides_what_the_template_says(benchmark: Mbpp) -> None:
    plain = planned_answers(benchmark, HOT, Style.COMPLETION)[0]
    other = planned_answers(
        benchmark, Sampling(**_with(HOT, max_tokens=5, stop=("x",))), Style.COMPLETION
    )[0]

    assert (plain.prompt.max_tokens, plain.prompt.stop[0]) == (768, '\n"""')
    assert (other.prompt.max_tokens, other.prompt.stop) == (5, ("x",))
    assert plain.prompt_digest != other.prompt_digest
    assert by_request_settings([plain, other, plain]) == [[plain, plain], [other]]


@given(st.sampled_from(["template", "text", "stop", "messages"]), st.text("ab", min_size=1))
def test_digest_tells_prompts_apart(field: str, text: str) -> None:
    values: dict[str, Any] = {
        "template": text,
        "text": text,
        "stop": (text,),
        "messages": ({"role": "user", "content": text},),
    }
    plain = Prompt(template="", max_tokens=1)

    changed = Prompt(**{"template": "", "max_tokens": 1, field: values[field]})

    assert digest_of(plain) != digest_of(changed)
    assert digest_of(changed) == digest_of(Prompt(**_with(changed, max_tokens=2)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": -1}, "temperature=-1 must be in"),
        ({"temperature": "hot"}, "s.t.temperature='hot', expected a number"),
        ({"num_samples": 2}, "the same answer again"),
        ({"num_samples": True}, "expected a whole number"),
        ({"top_p": 0}, "top_p=0 must be"),
        ({"stop": "x"}, "expected a list of words"),
        ({"stop": [""]}, "expected a list of words"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"n": 1}, "expected a mapping of temperature"),
        ([], "expected a mapping"),
    ],
)
def test_wrong_profile_is_named(fields: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_sampling(fields, "s.t")


def test_profile_is_named_by_the_suite() -> None:
    found = read_sampling({"temperature": 0.2, "stop": ["a"], "source": "LCB"}, "f: sampling.lcb")

    assert found == Sampling(name="lcb", temperature=0.2, stop=("a",), source="LCB")


def _with(value: Any, **changes: Any) -> dict[str, Any]:
    names = value.__dataclass_fields__
    return {**{name: getattr(value, name) for name in names}, **changes}
