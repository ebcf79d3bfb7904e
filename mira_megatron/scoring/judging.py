"""Has the records of a source judged, part by part: by rules, endpoints, or a model here.

Where a unit is shared, a worker judges the parts that it claims: first those that nobody has, then
those of workers that are gone. Answers that these kept are known by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mira_megatron.endpoints import api_key as api_key_of
from mira_megatron.launchers.claimed_parts import finish, ours
from mira_megatron.launchers.sharing import Sharing
from mira_megatron.manifest import Counts
from mira_megatron.progress import track
from mira_megatron.rubric.views import ViewMaker
from mira_megatron.scoring.ceilings import Ceilings
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judged_parts import (
    SETTLED_FOR_GOOD,
    Form,
    JudgedPart,
    Judging,
    all_parts,
    outcomes_of,
    records_of,
)
from mira_megatron.scoring.judging_endpoints import ask_endpoints
from mira_megatron.scoring.judging_here import judge_here, only_reply
from mira_megatron.shards import map_shards
from mira_megatron.stage import WorkResult, Workspace

# In which section of a recipe a stage's judge stands; else it is `score`.
_SECTIONS = {"discover": "teacher", "label": "teacher", "baseline": "baselines"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _InProcess:
    part: JudgedPart
    form: Form[Any]
    judge: Judge


def judge_parts(
    workspace: Workspace,
    parts: Sequence[JudgedPart],
    form: Form[Any],
    judge: Judge,
    sharing: Sharing | None = None,
) -> list[Counter[str]]:
    """Has every part judged and written; returns how many records of each ended how.

    Raises ValueError where an endpoint answers too little, or the spend ceiling is reached. What
    was answered is kept, and a part in which something failed is asked about again, but for one
    of a unit that is shared: it stays as its worker left it. Of a shared unit it returns to the
    one worker that is to end it; the others get HeldByOthers or EndedByOthers.
    """
    judging = Judging(
        form=form,
        judge=judge,
        title=workspace.unit.label,
        num_records=sum(part.num_records for part in parts),
        claims=None if sharing is None else sharing.claims,
        is_shared=workspace.resources.is_shared,
        earlier=workspace.earlier,
    )
    if judging.claims is not None:
        _check_no_ceiling(judging)
    match judge.config.engine:
        case "rule_judge" if judging.claims is not None:
            with track(judging.title, len(parts)) as advance:
                for part in ours(parts, judging.claims):
                    judging.write(part, _rows_by_rules(part, form, judge))
                    advance()
        case "rule_judge":
            tasks = [_InProcess(part=part, form=form, judge=judge) for part in parts]
            workers = workspace.resources.workers
            for _ in map_shards(_judge_in_process, tasks, workers=workers, title=judging.title):
                pass
        case "transformers" | "vllm":
            judge_here(parts, judging)
        case _:
            ask_endpoints(parts, judging, _api_key(workspace, judge) if judging.asks else None)
    if sharing is not None:
        finish(parts, judging.title, sharing)
    is_checked = not judging.asks or judge.config.engine in ("transformers", "vllm")
    if sharing is not None or is_checked:
        _check_usable(parts, judging)
    return [outcomes_of(part.output) for part in parts]


def judge_source(workspace: Workspace, source: str, form: Form[Any], judge: Judge) -> WorkResult:
    """Has all records of a source judged, and returns what a stage reports of it."""
    parts = all_parts(workspace, source)
    judged = judge_parts(workspace, parts, form, judge, workspace.sharing)
    outcomes: Counter[str] = sum(judged, Counter())
    return WorkResult(
        counts=Counts(
            num_in=outcomes.total(),
            num_out=outcomes.total(),
            totals=dict(sorted(outcomes.items())),
        ),
        rows={part.output.name: part.num_records for part in parts},
    )


def _api_key(workspace: Workspace, judge: Judge) -> str | None:
    section = _SECTIONS.get(workspace.unit.stage, "score")
    return api_key_of(judge.config.api_key_env, workspace.resources.secrets, section)


def _judge_in_process(task: _InProcess) -> None:
    """Judges one part, if it is not there yet."""
    if not task.part.output.is_file():
        rows = _rows_by_rules(task.part, task.form, task.judge)
        task.form.write(task.part.output, rows)


def _rows_by_rules(part: JudgedPart, form: Form[Any], judge: Judge) -> pa.Table:
    """Returns a part's rows; through the answer's text, so that a server's rows are the same."""
    view_maker = ViewMaker(judge.config.max_record_tokens, judge.tokenizer)
    rows = []
    for record in records_of(part):
        view = view_maker.view(record)
        answer = Answer(key=record.record_id, text=form.judge_in_process(view.text))
        rows.append(form.row(record, view, only_reply(answer, form)))
    return form.table(rows)


def _check_no_ceiling(judging: Judging) -> None:
    if Ceilings.of(judging.judge.config).are_on_charges:
        raise ValueError(
            f"{judging.title}: spend_ceiling and ceilings on tokens count what one process spends, "
            "so several cannot keep to them. Leave out --share and --processes, or the ceilings."
        )


def _check_usable(parts: Sequence[JudgedPart], judging: Judging) -> None:
    """Raises ValueError where all parts together hold too few usable answers."""
    judge = judging.judge
    outcomes: Counter[str] = sum((outcomes_of(part.output) for part in parts), Counter())
    useless = outcomes.total() - sum(outcomes[settled] for settled in SETTLED_FOR_GOOD)
    config = judge.config
    if useless > Ceilings.of(config).most_failures(outcomes.total()):
        kinds = ", ".join(f"{kind} {num:,}" for kind, num in sorted(outcomes.items()))
        if not judging.asks:
            way_out = "What was made of them earlier is left as it was"
        elif judge.is_local:
            way_out = "See whether max_tokens cuts them off, or train the scorer for longer"
        else:
            way_out = "The same command without --share asks again about those that failed"
        raise ValueError(
            f"{judging.title}: {useless:,} of {outcomes.total():,} records got no usable answer "
            f"from {judge.model} ({kinds}), more than "
            f"max_failed_fraction={config.max_failed_fraction} or "
            f"max_failures={config.max_failures} allows. The answers are kept in {judge.answers}. "
            f"{way_out}; a raised max_failed_fraction takes them as they are."
        )
