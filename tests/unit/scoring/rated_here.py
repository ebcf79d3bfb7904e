"""Has a model on this machine rate a part of records, counting what it generates; may kill itself.

    python rated_here.py FOLDER MODEL NAMES KILLED_AT

rates FOLDER/records.parquet and ends as kill -9 does when batch KILLED_AT is begun. Counted and
killed at is transformers' own model, at the pass that reads the prompts of a batch.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pyarrow.parquet as pq
from transformers import Qwen2ForCausalLM

from mira_megatron.launchers.claims import Claims
from mira_megatron.records import Anchor
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.judged_parts import JudgedPart
from mira_megatron.scoring.judging import judge_parts
from mira_megatron.scoring.rating import RatingForm
from mira_megatron.shards import file_digest

BATCH_SIZE = 4


@dataclass(slots=True)
class Generating:
    """What the model was asked: how many prompts each batch had."""

    killed_at: int | None = None
    sizes: list[int] = field(default_factory=list)

    def wrapped(self) -> Any:
        """Returns a patch of the model's forward pass that counts, and kills."""
        forward = Qwen2ForCausalLM.forward

        def counted(model: Any, *values: Any, **named: Any) -> Any:
            if named["past_key_values"].get_seq_length() == 0:
                self.sizes.append(len(named["input_ids"]))
                if len(self.sizes) == self.killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return forward(model, *values, **named)

        return mock.patch.object(Qwen2ForCausalLM, "forward", counted)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Watched(RatingForm):
    meanwhile: Callable[[], object]

    def messages(self, view_text: str) -> tuple[dict[str, str], ...]:
        self.meanwhile()
        return RatingForm.messages(self, view_text)


def part_of(records: Path) -> JudgedPart:
    return JudgedPart(
        records=records,
        digest=file_digest(records),
        output=records.with_name(f"rated-{records.name}"),
        record_ids=None,
        num_records=pq.read_metadata(records).num_rows,
    )


def rated_here(
    parts: Sequence[JudgedPart],
    model: Path,
    names: Sequence[str],
    answers: Path,
    killed_at: int | None = None,
    claims: Claims | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    earlier: Path | None = None,
    **settings: Any,
) -> list[int]:
    """Rates the parts, those it claims; returns how many prompts each batch had.

    `meanwhile` is called whenever a question is made.
    """
    config = JudgeConfig(
        **{
            **{"engine": "transformers", "model_path": str(model), "dtype": "float32"},
            **{"answer_mode": "expected", "temperature": 0.0, "top_p": 1.0, "max_tokens": 12},
            **{"batch_size": BATCH_SIZE, "max_failed_fraction": 1.0},
            **settings,
        }
    )
    form = PromptForm(prompt="bare", references=False, answers="compact")
    judge = Judge(
        config=config, seed=3, tokenizer=None, answers=answers, form=form, model_folder=model
    )
    generating = Generating(killed_at)
    unit = SimpleNamespace(label="score s", stage="score")
    resources = SimpleNamespace(workers=1, secrets={}, is_shared=False)
    workspace = SimpleNamespace(unit=unit, resources=resources, earlier=earlier)
    rating = _Watched(family="text", anchors=_anchors(names), judge=judge, meanwhile=meanwhile)
    sharing = None if claims is None else SimpleNamespace(claims=claims, finish=lambda: None)
    with generating.wrapped():
        judge_parts(cast(Any, workspace), parts, rating, judge, cast(Any, sharing))
    return generating.sizes


def _anchors(names: Sequence[str]) -> tuple[Anchor, ...]:
    return tuple(
        Anchor(
            anchor_id=f"A{slot}",
            name=name,
            description=None,
            part=None,
            cluster_size=None,
            aliases=(),
            medoid=None,
            references=(),
            rubric_version="v",
        )
        for slot, name in enumerate(names, start=1)
    )


if __name__ == "__main__":
    folder, model = map(Path, sys.argv[1:3])
    part = part_of(folder / "records.parquet")
    rated_here([part], model, sys.argv[3].split(","), folder / "answers", int(sys.argv[4]))
