"""What grading speaks of: samples, the code found in them, and verdicts.

A sample is one answer to one task. A verdict says what one benchmark makes of it: MBPP and MBPP+
give two verdicts on the same sample. Every verdict carries who gave it and how well the code was
isolated, so that verdicts of different graders are never mixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """What became of a sample. Only `infra` says nothing about the code."""

    PASS = "pass"
    FAIL = "fail"  # an answer that is wrong, or a test that did not hold
    TIMEOUT = "timeout"
    ERROR = "error"  # does not compile, raises, or dies before it answers
    NO_CODE = "no_code"
    TRUNCATED = "truncated"  # the endpoint stopped at its limit of tokens
    INFRA = "infra"  # the sandbox or this machine failed: to be graded again


class Form(StrEnum):
    """What a sample's text is."""

    COMPLETION = "completion"  # goes on where the prompt ends
    PROGRAM = "program"  # holds the prompt already: nothing is put before it
    ANSWER = "answer"  # of a chat: the code is looked for in it


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One answer to a task; `number` counts the answers to it from 0."""

    task_id: str
    number: int
    text: str
    form: Form = Form.COMPLETION
    is_truncated: bool = False  # the endpoint stopped at its limit of tokens
    is_raw: bool = False  # as an endpoint sent it; predictions made elsewhere are finished programs
    reason: str | None = None  # why there is no text


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    """The program found in a sample, or why there is none."""

    code: str | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one benchmark makes of one sample."""

    benchmark: str
    task_id: str
    sample: int
    status: Status
    detail: str  # for a reader: the first input that failed, the compiler's first line
    code_digest: str  # of the program, "" where there is none
    grader: str  # name and version, "mbpp/1"
    isolation: int  # the sandbox's level
    task_digest: str = ""  # of the task as it was; "" where something else says so

    @property
    def is_pass(self) -> bool:
        """Whether the sample counts as right."""
        return self.status is Status.PASS

    @property
    def key(self) -> str:
        """What the verdict is known by: another program or grader is another verdict."""
        return f"{self.task_id}#{self.sample}#{self.code_digest}#{self.grader}#{self.benchmark}"

    def to_line(self) -> bytes:
        """Returns one line of verdicts.jsonl, with its newline."""
        return json.dumps(asdict(self), ensure_ascii=True, sort_keys=True).encode() + b"\n"


def verdict_of_line(line: bytes) -> Verdict:
    """Returns the verdict of one line; ValueError where it is none."""
    try:
        values = json.loads(line)
        return Verdict(**{**values, "status": Status(values["status"])})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"no verdict: {line[:80]!r} ({error})") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """What a grader found out by running a program: one status and detail per benchmark."""

    statuses: Mapping[str, tuple[Status, str]]
    isolation: int
    seconds: float = field(default=0.0)  # wall time in the sandbox

    @property
    def is_lasting(self) -> bool:
        """True = the same program would get the same again; a time limit depends on the machine."""
        passing = (Status.TIMEOUT, Status.INFRA)
        return all(status not in passing for status, _ in self.statuses.values())


def digest(*parts: str | bytes) -> str:
    """Returns 32 hexadecimal digits of SHA-256 over parts, each with its length before it."""
    hasher = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(len(content).to_bytes(8, "little"))
        hasher.update(content)
    return hasher.hexdigest()[:32]
