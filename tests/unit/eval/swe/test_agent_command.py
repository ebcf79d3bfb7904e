from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.cli import main
from mira_megatron.eval.swe.agent_command import AgentRun, agent_words, command_line

RUN = AgentRun(served_model="mine", endpoint="http://node1:8000/v1", output=Path("agent"))


def test_command_names_the_settings_that_it_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "mine", "--endpoint", "http://node1:8000/v1", "--output", "agent"]
    assert main(["swe", "command", *words]) == 0
    assert capsys.readouterr().out == (
        "MSWEA_COST_TRACKING=ignore_errors "
        "mini-extra swebench --subset multilingual --split test --workers 16 "
        "--environment-class docker --model hosted_vllm/mine --config swebench.yaml "
        "--config 'model.model_kwargs.api_base=\"http://node1:8000/v1\"' "
        "--config model.model_kwargs.temperature=0.0 --output agent\n"
    )


def test_model_without_tool_calls_gets_commands_between_backticks() -> None:
    _, words = agent_words(replace(RUN, has_tool_calls=False))
    assert words[words.index("--config") + 1] == "swebench_backticks.yaml"
    assert words[words.index("--model-class") + 1] == "litellm_textbased"


def test_podman_takes_the_place_of_docker() -> None:
    environment, words = agent_words(replace(RUN, environment="podman"))
    assert environment["MSWEA_DOCKER_EXECUTABLE"] == "podman"
    assert words[words.index("--environment-class") + 1] == "docker"


@given(st.text(min_size=1).filter(lambda name: not name.startswith("-")), st.text())
def test_words_reach_a_shell_as_they_are(name: str, path: str) -> None:
    run = replace(RUN, served_model=name, output=Path("x" + path.replace("\0", "")))
    _, words = agent_words(run)
    assert shlex.split(command_line(run))[1:] == words
    assert words[words.index("--model") + 1] == f"hosted_vllm/{name}"


@given(st.text())
def test_endpoint_is_read_back_as_it_is(path: str) -> None:
    _, words = agent_words(replace(RUN, endpoint=f"http://{path}"))
    setting = next(word for word in words if "api_base" in word)
    assert json.loads(setting.partition("=")[2]) == f"http://{path}"


@pytest.mark.parametrize(
    "change",
    [
        {"environment": "vm"},
        {"endpoint": "node1:8000"},
        {"workers": 0},
        {"temperature": -1.0},
        {"served_model": "--help"},
        {"subset": ""},
    ],
)
def test_values_that_make_no_command_are_refused(change: dict[str, object]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=name):
        replace(RUN, **change)  # type: ignore[arg-type]
