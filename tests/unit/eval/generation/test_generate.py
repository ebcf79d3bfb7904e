from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_endpoint import MODEL, EvalEndpoint, Fault, serving

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.generation.asking import Asked, NotGeneratedError, generate
from mira_megatron.eval.generation.generations import (
    Generation,
    GenerationFile,
    generated_samples,
    read_generations,
)
from mira_megatron.eval.generation.planned import Planned, digest_of
from mira_megatron.eval.generation.sampling import Sampling
from mira_megatron.eval.verdicts import Form

GREEDY = Sampling(name="greedy")


@pytest.fixture
def endpoint() -> Iterator[EvalEndpoint]:
    with serving(EvalEndpoint()) as served:
        yield served


def planned(num: int, **changes: Any) -> list[Planned]:
    """Returns answers to be asked as completions of "0", "1" ..."""
    return [
        planned_one(
            f"t/{number}", Prompt(template="p/1", text=f"{number}", max_tokens=9), **changes
        )
        for number in range(num)
    ]


def planned_one(task_id: str, prompt: Prompt, **changes: Any) -> Planned:
    each = Planned(
        task_id=task_id,
        number=0,
        prompt=prompt,
        prompt_digest=digest_of(prompt),
        profile=GREEDY,
        seed=None,
        style=Style.COMPLETION,
    )
    return dataclasses.replace(each, **changes)


def generated(
    folder: Path, endpoint: EvalEndpoint, wanted: list[Planned], **changes: Any
) -> list[Generation]:
    """Returns what is in the file after it was asked for, in the order of what is wanted."""
    patience: dict[str, Any] = {"timeout_seconds": 20, "patience_seconds": 1}
    asked = Asked(
        endpoints=(endpoint.url,), model=MODEL, backoff_seconds=0.01, **{**patience, **changes}
    )
    path = folder / "generations.jsonl"
    with GenerationFile(path) as file:
        generate(wanted, asked, file, title="g", num_done=0)
    found = read_generations(path)
    return [found[each.key] for each in wanted if each.key in found]


def test_completion_is_asked_and_written_with_all_that_is_known_of_it(
    tmp_path: Path, endpoint: EvalEndpoint
) -> None:
    stop = ("\nassert", "b", "c", "d", "fi")  # servers take four
    prompt = Prompt(template="p/1", text="x = ", stop=stop, max_tokens=9)
    endpoint.answer_of = lambda asked: "so fine"
    sampled = Sampling(name="s", temperature=0.6, top_p=0.95, num_samples=2)

    (found,) = generated(
        tmp_path, endpoint, [planned_one("t/0", prompt, profile=sampled, seed=17, number=1)]
    )

    assert endpoint.paths == ["/v1/completions"]
    assert endpoint.bodies == [
        {
            "model": MODEL,
            "prompt": "x = ",
            "temperature": 0.6,
            "top_p": 0.95,
            "max_tokens": 9,
            "stop": ["\nassert", "b", "c", "d"],
            "seed": 17,
        }
    ]
    assert found == Generation(
        task_id="t/0",
        sample=1,
        prompt_digest=digest_of(prompt),
        template="p/1",
        sampling="temperature=0.6 top_p=0.95 max_tokens=9",
        seed=17,
        form=Form.COMPLETION,
        text="so ",
        finish_reason="stop",
        num_prompt_tokens=7,
        num_output_tokens=3,
        reason=None,
    )


def test_chat_with_a_beginning_is_continued_and_kept_with_it(
    tmp_path: Path, endpoint: EvalEndpoint
) -> None:
    messages = ({"role": "user", "content": "Go"}, {"role": "assistant", "content": "So:\n"})
    prompt = Prompt(template="p/1", messages=messages, max_tokens=9)

    (found,) = generated(tmp_path, endpoint, [planned_one("t/0", prompt, style=Style.CHAT)])

    (body,) = endpoint.bodies
    assert endpoint.paths == ["/v1/chat/completions"]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["messages"] == list(messages)
    assert "seed" not in body
    assert (found.text, found.form) == ("So:\nfine So:\n", Form.ANSWER)


def test_text_behind_a_stop_word_goes_whatever_the_endpoint_does(
    tmp_path: Path, endpoint: EvalEndpoint
) -> None:
    endpoint.answer_of = lambda asked: "return 1\nassert f() == 1"
    endpoint.finish_reason = "length"
    stopped = Prompt(template="p/1", text="0", stop=("\nassert",), max_tokens=9)
    cut_off = dataclasses.replace(stopped, stop=("never",))

    wanted = [planned_one("t/0", stopped), planned_one("t/1", cut_off)]
    first, second = generated(tmp_path, endpoint, wanted)

    assert (first.text, first.finish_reason) == ("return 1", "stop")
    assert second.finish_reason == "length"
    assert [each.to_sample().is_truncated for each in (first, second)] == [False, True]


@pytest.mark.parametrize("fault", ["429", "500", "cut", "reset", "bad_json", "empty"])
def test_fault_is_survived_and_every_task_answered_once(
    tmp_path: Path, endpoint: EvalEndpoint, fault: Fault
) -> None:
    endpoint.faults = deque([fault, fault])

    found = generated(tmp_path, endpoint, planned(12))

    assert [each.text for each in found] == [f"fine {number}" for number in range(12)]
    assert len((tmp_path / "generations.jsonl").read_bytes().splitlines()) == 12
    assert len(endpoint.bodies) == 14


def test_answer_that_hangs_is_asked_for_again(tmp_path: Path, endpoint: EvalEndpoint) -> None:
    endpoint.faults = deque(["hang"])

    found = generated(tmp_path, endpoint, planned(3), timeout_seconds=1.0)

    assert len(found) == 3


def test_answers_without_text_say_why_and_are_not_asked_for_again(
    tmp_path: Path, endpoint: EvalEndpoint
) -> None:
    endpoint.answer_of = lambda asked: ""
    endpoint.faults = deque(["too_long"])
    prompts = [Prompt(template="p/1", text=text, max_tokens=9) for text in ("0", "1", "\ud800")]
    wanted = [planned_one(f"t/{number}", prompt) for number, prompt in enumerate(prompts)]

    found = generated(tmp_path, endpoint, wanted, max_in_flight=1)

    assert [each.reason for each in found] == ["too_long", "empty", "unencodable"]
    assert [each.to_sample().reason for each in found] == ["too_long", "empty", "unencodable"]
    assert all(each.text is None for each in found)
    assert len(endpoint.bodies) == 2


def test_wrong_request_ends_the_asking_soon_and_says_so(
    tmp_path: Path, endpoint: EvalEndpoint
) -> None:
    endpoint.every = "400"

    with pytest.raises(NotGeneratedError, match=r"300 of 300 answers are open \(http_400"):
        generated(tmp_path, endpoint, planned(300))

    assert len(endpoint.bodies) < 150


def test_open_answers_are_named_and_the_others_kept(tmp_path: Path, endpoint: EvalEndpoint) -> None:
    endpoint.faults = deque(["bad_json", None, None, None, "bad_json", "bad_json"])

    with pytest.raises(NotGeneratedError, match=r"1 of 4 answers are open \(bad_body 1\)"):
        generated(tmp_path, endpoint, planned(4), max_in_flight=1)

    assert len(read_generations(tmp_path / "generations.jsonl")) == 3


def test_endpoint_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    nowhere = EvalEndpoint(url="http://127.0.0.1:9/v1")

    with pytest.raises(NotGeneratedError, match="connection"):
        generated(tmp_path, nowhere, planned(3))


def test_samples_are_those_of_the_plan_alone(tmp_path: Path, endpoint: EvalEndpoint) -> None:
    wanted = planned(2)
    generated(tmp_path, endpoint, wanted)
    path = tmp_path / "generations.jsonl"
    changed = Prompt(template="p/2", text="0!", max_tokens=9)
    others = [
        planned_one("t/0", changed),
        planned_one("t/0", wanted[0].prompt, seed=3),
        planned_one("t/0", dataclasses.replace(wanted[0].prompt, max_tokens=10)),
    ]

    found = read_generations(path)

    assert [each.text for each in generated_samples(wanted, found, path)] == ["fine 0", "fine 1"]
    for other in others:
        with pytest.raises(ValueError, match=r"no answer of p/., .*; it has p/1, temperature=0.0"):
            generated_samples([other], found, path)
