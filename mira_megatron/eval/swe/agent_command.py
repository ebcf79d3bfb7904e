"""The command line that has mini-swe-agent make patches with a served model.

Settings as mini-swe-agent 2.4 has them. Giving it one setting with -c leaves its own file out, so
that is named first. What costs nothing must not be asked for its price. A model without tool calls
gets the file where commands stand between backticks, and the class that looks for them there.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = ("docker", "podman", "singularity")
MULTILINGUAL = "multilingual"


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRun:
    """Which model makes patches for which instances."""

    served_model: str
    endpoint: str  # ends in /v1
    output: Path  # its preds.json is what `mira swe` reads
    subset: str = MULTILINGUAL  # or a path that datasets.load_dataset reads
    environment: str = "docker"
    workers: int = 16
    temperature: float = 0.0
    has_tool_calls: bool = True

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise ValueError(
                f"environment={self.environment!r}, expected one of {', '.join(ENVIRONMENTS)}"
            )
        if not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint={self.endpoint!r}, expected http://HOST:PORT/v1")
        if self.workers < 1 or self.temperature < 0:
            raise ValueError(
                f"workers={self.workers}, temperature={self.temperature}: "
                "expected 1 or more, 0 or more"
            )
        for name in ("served_model", "subset"):
            if not getattr(self, name) or getattr(self, name).startswith("-"):
                raise ValueError(f"{name}={getattr(self, name)!r}, expected a name")


def agent_words(run: AgentRun) -> tuple[dict[str, str], list[str]]:
    """Returns the environment variables to set, and the words of the command."""
    environment = {"MSWEA_COST_TRACKING": "ignore_errors"}
    container = run.environment
    if container == "podman":  # the same words as Docker's
        environment["MSWEA_DOCKER_EXECUTABLE"] = "podman"
        container = "docker"
    settings = "swebench.yaml" if run.has_tool_calls else "swebench_backticks.yaml"
    words = ["mini-extra", "swebench", "--subset", run.subset, "--split", "test"]
    words += ["--workers", str(run.workers), "--environment-class", container]
    words += ["--model", f"hosted_vllm/{run.served_model}"]
    if not run.has_tool_calls:
        words += ["--model-class", "litellm_textbased"]
    # Values are read as JSON, so a text that looks like a number has to be quoted.
    for setting in (
        settings,
        f"model.model_kwargs.api_base={json.dumps(run.endpoint)}",
        f"model.model_kwargs.temperature={run.temperature}",
    ):
        words += ["--config", setting]
    return environment, [*words, "--output", str(run.output)]


def command_line(run: AgentRun) -> str:
    """Returns the command for a shell, every word quoted."""
    environment, words = agent_words(run)
    assignments = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*assignments, shlex.join(words)])
