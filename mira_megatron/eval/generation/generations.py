"""generations.jsonl: what a model answered, one line per task and sample.

Append-only. Each line goes to the operating system in one write before another request is sent, so
kill -9 loses no answer that was received; a torn last line, of a machine that went down, is cut
off by the next run. Lines of other prompts and settings stay, and are not used.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mira_megatron.atomic_files import explaining_full_disk
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.generation.planned import Key, Planned
from mira_megatron.eval.verdicts import Form, Sample

GENERATIONS_FILE = "generations.jsonl"

_CUT_OFF = "length"


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One answer, or why there is none."""

    task_id: str
    sample: int
    prompt_digest: str
    template: str
    sampling: str
    seed: int | None
    form: Form
    # The beginning that the prompt gave and what the model added, up to the first stop word.
    text: str | None
    finish_reason: str | None  # the endpoint's; "stop" where the text was cut at a stop word here
    num_prompt_tokens: int | None  # as the endpoint counted
    num_output_tokens: int | None
    reason: str | None  # why there is no text: empty, refused, too_long (for the context) …

    @property
    def key(self) -> Key:
        """Returns what the answer is known by, as Planned.key."""
        return (self.task_id, self.sample, self.prompt_digest, self.sampling, self.seed)

    def to_line(self) -> bytes:
        """Returns one line of the file, with its newline."""
        return json.dumps(asdict(self), ensure_ascii=True).encode() + b"\n"

    def to_sample(self) -> Sample:
        """Returns what is graded."""
        return Sample(
            task_id=self.task_id,
            number=self.sample,
            text=self.text or "",
            form=self.form,
            is_truncated=self.finish_reason == _CUT_OFF,
            is_raw=True,
            reason=self.reason,
        )


_KINDS: Mapping[str, tuple[type, ...]] = {
    "task_id": (str,),
    "sample": (int,),
    "prompt_digest": (str,),
    "template": (str,),
    "sampling": (str,),
    "seed": (int, type(None)),
    "form": (str,),
    "text": (str, type(None)),
    "finish_reason": (str, type(None)),
    "num_prompt_tokens": (int, type(None)),
    "num_output_tokens": (int, type(None)),
    "reason": (str, type(None)),
}


def generation_of_line(line: bytes) -> Generation:
    """Returns the answer of one line; ValueError where it is none."""
    try:
        fields: Any = json.loads(line)
        wrong = [name for name, kinds in _KINDS.items() if not isinstance(fields[name], kinds)]
        if wrong or set(fields) != set(_KINDS):
            raise ValueError(f"wrong {wrong or sorted(set(fields) - set(_KINDS))}")
        return Generation(**{**fields, "form": Form(fields["form"])})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"no generation: {line[:80]!r} ({error})") from error


def read_generations(path: Path) -> dict[Key, Generation]:
    """Returns the answers of a file, the later one where a key is there twice.

    What follows the last newline is no line. Raises ValueError with file and line for any other
    that is no answer, FileNotFoundError where there is no file.
    """
    content = path.read_bytes()
    generations = {}
    for number, line in enumerate(content[: _whole_bytes(content)].split(b"\n")[:-1], start=1):
        try:
            generation = generation_of_line(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}; remove the line, or the file") from error
        generations[generation.key] = generation
    return generations


def generated_samples(
    planned: Sequence[Planned], generations: Mapping[Key, Generation], path: Path
) -> list[Sample]:
    """Returns the samples to grade, in the order of `planned`; those not generated are left out.

    Raises ValueError where there is none, naming what the file holds instead.
    """
    found = [generations[each.key] for each in planned if each.key in generations]
    if planned and not found:
        others = sorted({f"{each.template}, {each.sampling}" for each in generations.values()})
        wanted = f"{planned[0].prompt.template}, {planned[0].sampling}"
        raise ValueError(
            f"{path}: no answer of {wanted}; it has {'; '.join(others) or 'none at all'}. "
            "Generate with this suite, style and data file, or give those it was generated with"
        )
    return [each.to_sample() for each in found]


def textless(planned: Sequence[Planned], generations: Mapping[Key, Generation]) -> str:
    """Returns how many of the planned answers have no text, by reason, in words."""
    found = (generations.get(each.key) for each in planned)
    counts = Counter(each.reason for each in found if each is not None and each.reason)
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))


def style_of(generations: Iterable[Generation]) -> Style:
    """Returns how the model was asked for the last of some answers."""
    forms = [each.form for each in generations]
    return Style.CHAT if forms and forms[-1] is Form.ANSWER else Style.COMPLETION


class GenerationFile:
    """Takes answers; opening it cuts a torn last line off."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            content = path.read_bytes()
            if len(content) != (num_bytes := _whole_bytes(content)):
                os.truncate(path, num_bytes)
        self._file = path.open("ab", buffering=0)
        self._is_whole = True

    def __enter__(self) -> Self:
        return self

    def append(self, generation: Generation) -> None:
        """Hands a line to the operating system; after one that it did not take whole, no other.

        Raises OSError (one of atomic_files.NO_SPACE) with the way out when the disk is full.
        """
        line = generation.to_line()
        doing = "keeping an answer. Make room and run the same command again"
        with explaining_full_disk(Path(self._file.name), doing):
            is_whole, self._is_whole = self._is_whole, False
            if not is_whole or self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "a line was not written whole")
            self._is_whole = True

    def __exit__(self, *exception: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _whole_bytes(content: bytes) -> int:
    return content.rfind(b"\n") + 1
