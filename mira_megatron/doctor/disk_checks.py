"""Checks of the disk under the run folder: what is still to be written against what is free."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mira_megatron.doctor.environment import CHECKPOINT_BYTES_PER_PARAMETER
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.path_checks import SourceFiles
from mira_megatron.doctor.planned_trainings import PlannedTraining, planned_trainings
from mira_megatron.doctor.subject import Subject
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.training.bridge_settings import ScorerSftSettings
from mira_megatron.training.rank_parameters import num_parameters
from mira_megatron.training.trained_arms import TrainedArm, trained_arms
from mira_megatron.written_numbers import size

# The imported base and the export, in bfloat16 each.
_OTHER_BYTES_PER_PARAMETER = 4
_TOKEN_BYTES = 4  # int32: every vocabulary of 65,500 and more


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Something that will be written."""

    what: str
    num_bytes: int
    is_sure: bool  # False: a guess from the size of something else


def check_room(subject: Subject, sources: SourceFiles) -> list[Finding]:
    """Returns what is to be written, and finds a disk that has no room for it."""
    findings: list[Finding] = []
    needs = [
        *_checkpoints(subject, findings),
        *_physical_copies(subject, findings),
        *_records(subject, sources),
    ]
    findings += _unknown_tokens(subject)
    folder = subject.recipe.run_folder
    near = next(path for path in (folder, *folder.parents) if path.is_dir())
    findings += room_findings(needs, shutil.disk_usage(near).free, str(folder))
    return findings


def room_findings(needs: Sequence[Need], free_bytes: int, folder: str) -> list[Finding]:
    """Returns the sum of what is to be written, as an error where it cannot fit."""
    if not needs:
        return []
    sure = sum(need.num_bytes for need in needs if need.is_sure)
    whole = sum(need.num_bytes for need in needs)
    listed = "; ".join(f"{need.what} {size(need.num_bytes)}" for need in needs)
    what = f"about {size(whole)} are still to be written ({listed}), {size(free_bytes)} are free"
    way_out = "put the run folder on a larger disk, or keep less"
    if sure > free_bytes:
        return [Finding(level=ERROR, what=what, where=folder, way_out=way_out)]
    if whole > free_bytes:
        return [Finding(level=WARNING, what=what, where=folder, way_out=way_out)]
    return [Finding(level=INFO, what=what, where=folder)]


def _checkpoints(subject: Subject, findings: list[Finding]) -> Iterator[Need]:
    kept = ScorerSftSettings().keep_checkpoints + 1  # and the one being written
    for training in planned_trainings(subject.recipe):
        if subject.is_done(training.stage) or training.sizes is None:
            continue
        number = _num_trainings(subject, training, findings)
        if not number:
            continue
        parameters = num_parameters(training.sizes).total
        per_parameter = CHECKPOINT_BYTES_PER_PARAMETER * kept + _OTHER_BYTES_PER_PARAMETER
        each = parameters * per_parameter
        yield Need(
            what=f"{number} x checkpoints of {training.stage}",
            num_bytes=number * each - _saved_bytes(subject, training, each),
            is_sure=True,
        )


def _saved_bytes(subject: Subject, training: PlannedTraining, most: int) -> int:
    """Returns what trainings under way have saved, of each model's newest and at `most` each.

    An earlier selection's checkpoints lie there too, and are written by none of these. Of scorers
    nothing is counted: whose they are is not in their folders' names.
    """
    total = 0
    if training.config is None:
        return total
    # Seeds of an arm are mid-trained beside each other in one folder, and tuned in one for each.
    works = Counter(
        f"{training.stage}.{model.arm if training.stage == 'midtrain' else model.name}"
        for model in _models_left(subject, training.stage)
    )
    for work, number in works.items():
        found = (subject.recipe.run_folder / "bridge" / work).glob("checkpoints-*")
        for folder in sorted(found, key=lambda path: path.stat().st_mtime)[-number:]:
            files = (path for path in folder.rglob("*") if path.is_file())
            total += min(most, sum(path.stat().st_size for path in files))
    return total


def _num_trainings(
    subject: Subject, training: PlannedTraining, findings: list[Finding]
) -> int | None:
    """Returns how many trainings a stage has left; None, and a finding, where groups decide it."""
    if training.stage != "distill":
        return len(_models_left(subject, training.stage))
    if subject.is_done("group"):
        names = [unit.name for unit in subject.units if unit.stage == "distill"]
        return sum(not subject.is_done("distill", name) for name in names)
    what = "the room that scorers take is not known before group, which finds how many there are"
    where = subject.where("distill")
    findings.append(Finding(level=UNKNOWN, what=what, where=where, way_out="run doctor again then"))
    return None


def _models_left(subject: Subject, stage: str) -> list[TrainedArm]:
    """Returns the models that a stage has not trained yet; the base is not mid-trained."""
    return [
        model
        for model in trained_arms(subject.recipe)
        if (model.has_midtraining or stage != "midtrain") and not subject.is_done(stage, model.name)
    ]


def _physical_copies(subject: Subject, findings: list[Finding]) -> Iterator[Need]:
    values = subject.recipe.values
    if (values.get("blend") or {}).get("handover") != "physical_copy":
        return
    arms = [arm for arm in subject.recipe.mapping("arms") if not subject.is_done("blend", arm)]
    budget = (values.get("select") or {}).get("budget_tokens")
    if arms and budget is None:
        what = "the room that copies of the selections take is not known before select"
        where = subject.where("blend.handover=physical_copy")
        findings.append(
            Finding(level=UNKNOWN, what=what, where=where, way_out="run doctor again then")
        )
    elif arms:
        num_bytes = round(len(arms) * float(str(budget)) * _TOKEN_BYTES)
        yield Need(what=f"{len(arms)} x copy of a selection", num_bytes=num_bytes, is_sure=True)


def _records(subject: Subject, sources: SourceFiles) -> Iterator[Need]:
    files = [path for found in sources.values() if isinstance(found, list) for path in found]
    num_bytes = sum(path.stat().st_size for path in files if path.exists())
    if num_bytes:
        yield Need(what="records, as large as their sources,", num_bytes=num_bytes, is_sure=False)


def _unknown_tokens(subject: Subject) -> Iterator[Finding]:
    adopted = adopted_sources(subject.recipe)
    names = [
        unit.name
        for unit in subject.units
        if unit.stage == "tokenize"
        and unit.name not in adopted
        and subject.states[unit.folder] != "done"
    ]
    if names:
        yield Finding(
            level=UNKNOWN,
            what=f"the room that tokens take ({_TOKEN_BYTES} bytes each) is not known before "
            "tokenize",
            where=f"{subject.recipe.run_folder}/tokens",
            way_out="run doctor again then",
        )
