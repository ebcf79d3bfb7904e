"""The work behind `mira sft-data`: parts side by side into scratch, then one file in order."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.atomic_files import replacing, write_json
from mira_megatron.distill.chatml import render
from mira_megatron.distill.length_report import length_report, log_lengths
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer, train_tokenizer
from mira_megatron.distill.sft_data import SftSettings
from mira_megatron.distill.sft_files import DROPPED, LENGTHS, TRAINING, VALIDATION
from mira_megatron.distill.sft_parts import IndexedPart, PartTask, make_part
from mira_megatron.distill.sft_rows import RatedPart, answer_text, distill_half, records_of
from mira_megatron.manifest import Counts
from mira_megatron.records import Anchor
from mira_megatron.rubric.anchor_files import read_anchors
from mira_megatron.rubric.fence import quote
from mira_megatron.rubric.prompts import score_messages
from mira_megatron.shards import map_shards
from mira_megatron.stage import WorkResult, Workspace

# Characters of a record that a tokenizer is trained on, per token that the scorer will be shown of
# it: a view needs the tokenizer, so what will be in the view is not known yet.
_CHARS_PER_TOKEN = 4


def sft_data(workspace: Workspace, settings: SftSettings) -> WorkResult:
    """Writes one group's samples, their lengths, and what was left out.

    Raises ValueError for labels of other anchors, and where nothing is left to train on.
    """
    path = workspace.run.folder / layout.anchors(settings.rubric, settings.group) / layout.ANCHORS
    anchors = read_anchors(path)
    _check_labels(workspace, settings, anchors)
    parts = rated_parts(workspace, settings)
    tokenizer = _tokenizer(workspace, settings, anchors, parts)
    tasks = [
        PartTask(
            part=part,
            scratch=workspace.scratch,
            family=settings.family,
            anchors=anchors,
            tokenizer=tokenizer,
            config=settings.config,
            seed=settings.seed,
        )
        for part in parts
    ]
    workers = workspace.resources.workers
    made = list(map_shards(make_part, tasks, workers=workers, title=workspace.unit.label))
    reasons = Counter(
        reason for part in made for reason in part.index["reason"].to_pylist() if reason
    )
    num_in = sum(part.index.num_rows for part in made)
    num_training = _write_samples(workspace.folder / TRAINING, made, is_validation=False)
    num_validation = _write_samples(workspace.folder / VALIDATION, made, is_validation=True)
    _check_not_empty(settings, num_training, num_validation, reasons)
    _write_dropped(workspace.folder / DROPPED, made)
    report = length_report(made, settings.sources, settings.config.sequence_length)
    write_json(workspace.folder / LENGTHS, report)
    log_lengths(settings.group, report)
    return WorkResult(
        counts=Counts(
            num_in=num_in,
            num_out=num_training + num_validation,
            dropped=dict(sorted(reasons.items())),
            totals={
                "training": num_training,
                "validation": num_validation,
                "held_back_for_reliability": sum(part.num_held_back for part in made),
            },
        ),
        rows={TRAINING: num_training, VALIDATION: num_validation, DROPPED: reasons.total()},
    )


def rated_parts(workspace: Workspace, settings: SftSettings) -> list[RatedPart]:
    """Returns the parts of the group's labels, each with the part of records it rates."""
    rated: list[RatedPart] = []
    for source in settings.sources:
        records = {
            part.path: (path, part)
            for path, part in workspace.upstream_parts(layout.records(source), ".parquet")
        }
        folder = layout.teacher_ratings(settings.rubric, source)
        for path, part in workspace.upstream_parts(folder, ".parquet"):
            records_path, records_part = records[part.path]
            rated.append(
                RatedPart(
                    source=source,
                    name=path.stem,
                    ratings=path,
                    ratings_digest=part.digest,
                    records=records_path,
                    records_digest=records_part.digest,
                )
            )
    return rated


def _check_labels(workspace: Workspace, settings: SftSettings, anchors: Sequence[Anchor]) -> None:
    """Raises ValueError where a source was labelled on other anchors than those lying here."""
    folder = layout.anchors(settings.rubric, settings.group)
    present = workspace.upstream_manifest(folder).output_digest
    for source in settings.sources:
        ratings = layout.teacher_ratings(settings.rubric, source)
        labelled_on = workspace.upstream_manifest(ratings).inputs.get(folder)
        if labelled_on != present:
            raise ValueError(
                f"{workspace.run.folder / ratings}: these labels were made on other anchors "
                f"({folder} with digest {labelled_on}) than {workspace.run.folder / folder} holds "
                f"(rubric_version {anchors[0].rubric_version}, digest {present}). Label anew with "
                "`mira label`, put the old anchors back, or choose another rubric=NAME."
            )


def _tokenizer(
    workspace: Workspace,
    settings: SftSettings,
    anchors: tuple[Anchor, ...],
    parts: Sequence[RatedPart],
) -> Path:
    """Returns the group's tokenizer.json, copied from the base or trained; ValueError if unfit."""
    path = workspace.folder / layout.TOKENIZER_FILE
    if settings.base_tokenizer is not None:
        ScorerTokenizer(settings.base_tokenizer)  # its message names the base's file
        with replacing(path) as temporary:
            shutil.copyfile(settings.base_tokenizer, temporary)
    elif not path.is_file():
        assert settings.config.train_vocab_size is not None
        texts = _tokenizer_texts(settings, anchors, parts)
        train_tokenizer(texts, settings.config.train_vocab_size, path)
    ScorerTokenizer(path)
    return path


def _tokenizer_texts(
    settings: SftSettings, anchors: tuple[Anchor, ...], parts: Sequence[RatedPart]
) -> Iterator[str]:
    """Yields what the scorer will read and write: the prompt once, records cut short, answers."""
    form = settings.config.form
    names = [anchor.name for anchor in anchors]
    max_chars = _CHARS_PER_TOKEN * settings.config.max_record_tokens
    yield render(score_messages(settings.family, anchors, "", form))
    for part in parts:
        ratings, _ = distill_half(part)
        answer_of = {
            rating["record_id"]: answer_text(rating, names, form)
            for rating in ratings
            if rating["status"] == "ok"
        }
        for record in records_of(part, list(answer_of)):
            shown = record.text if record.payload is None else record.payload
            yield quote(shown[:max_chars])
            yield answer_of[record.record_id] or ""


def _write_samples(path: Path, parts: Sequence[IndexedPart], *, is_validation: bool) -> int:
    """Writes one side's lines in the order of their keys; returns how many there are."""
    places: list[tuple[int, str, Path, int, int]] = []
    for part in parts:
        chosen = part.index.filter(pc.equal(part.index["is_validation"], is_validation))
        columns = (
            chosen[name].to_pylist() for name in ("order_key", "record_id", "offset", "num_bytes")
        )
        places += [
            (key, record_id, part.lines, offset, num_bytes)
            for key, record_id, offset, num_bytes in zip(*columns, strict=True)
        ]
    places.sort(key=lambda place: place[:2])
    with replacing(path) as temporary, temporary.open("wb") as output:
        for _, _, lines, offset, num_bytes in places:
            with lines.open("rb") as file:
                file.seek(offset)
                output.write(file.read(num_bytes))
    return len(places)


def _write_dropped(path: Path, parts: Sequence[IndexedPart]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as output:
        for part in parts:
            left_out = part.index.filter(pc.is_valid(part.index["reason"]))
            for row in left_out.select(["record_id", "reason", "detail"]).to_pylist():
                row["source"] = part.source
                output.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _check_not_empty(
    settings: SftSettings, num_training: int, num_validation: int, reasons: Counter[str]
) -> None:
    """Raises ValueError where one side has no sample."""
    if num_training and num_validation:
        return
    left_out = ", ".join(f"{reason} {num:,}" for reason, num in sorted(reasons.items()))
    folders = [layout.teacher_ratings(settings.rubric, source) for source in settings.sources]
    where = f"sft-data {settings.group}: of {', '.join(folders)}"
    if num_training + num_validation == 0:
        raise ValueError(
            f"{where} no label can be trained on (left out: {left_out or 'none, there are none'}). "
            "Raise label.records_per_source; for over_long, raise distill.sequence_length or lower "
            "distill.max_record_tokens; for teacher_…, see the reasons there."
        )
    side = "training" if num_validation else "validation"
    raise ValueError(
        f"{where} {num_training + num_validation:,} labels can be trained on, and none of them is "
        f"on the {side} side of validation_fraction={settings.config.validation_fraction} "
        f"(left out: {left_out or 'none'}). Raise label.records_per_source, or change "
        "distill.validation_fraction."
    )
