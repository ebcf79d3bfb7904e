"""The work behind `mira ablation`; apart from its unit because it imports the template engine."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.ablation.ablation import (
    AblationSettings,
    ComparedArm,
    ablation_settings,
    units,
    without_lost,
)
from mira_megatron.ablation.benchmarks import Benchmarks, arms_scores
from mira_megatron.ablation.bits import HeldOut, arms_bits
from mira_megatron.ablation.contaminated import ArmHits, arm_hits, read_hits
from mira_megatron.ablation.degraded import kept_degraded
from mira_megatron.ablation.estimates import ArmNumbers
from mira_megatron.ablation.machine_files import table_csv, table_latex
from mira_megatron.ablation.markdown import table_markdown
from mira_megatron.ablation.page import page_html
from mira_megatron.ablation.table import AblationTable, ArmRow, arm_numbers, table_json
from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.config import Recipe
from mira_megatron.eval.comparison.outputs import read_evaluation
from mira_megatron.eval.statistics.resampling import Resampling
from mira_megatron.manifest import Counts
from mira_megatron.report.arm_overlap import Drift, drift, overlaps, read_languages
from mira_megatron.report.outcomes import JudgedArm, read_arm
from mira_megatron.report.training_course import read_course
from mira_megatron.retention.documents import read_documents
from mira_megatron.shards import read_part
from mira_megatron.stage import Resources, Run, WorkResult, Workspace
from mira_megatron.training.held_out import DOCUMENTS

TABLE_JSON, TABLE_MD, TABLE_TEX, TABLE_CSV, PAGE = (
    "table.json",
    "table.md",
    "table.tex",
    "table.csv",
    "index.html",
)


def make_table(workspace: Workspace, settings: AblationSettings) -> WorkResult:
    """Writes the table in every form. Raises ValueError where arms were measured unlike."""
    table = read_table(workspace, settings)
    write_json(workspace.folder / TABLE_JSON, table_json(table))
    for name, content in (
        (TABLE_MD, table_markdown(table)),
        (TABLE_TEX, table_latex(table)),
        (TABLE_CSV, table_csv(table)),
        (PAGE, page_html(table)),
    ):
        write_bytes(workspace.folder / name, content.encode())
    num_models = len({model for arm in settings.arms for model in arm.models.values()})
    totals = {"models": num_models, "documents": sum(table.num_documents.values())}
    counts = Counts(num_in=num_models, num_out=len(table.arms), totals=totals)
    return WorkResult(counts=counts)


def surviving_markdown(recipe: Recipe, lost: AbstractSet[str]) -> str | None:
    """Returns the table of the arms of which no folder is lost; None where fewer than two are left.

    For who waits for the others: nothing is written.
    """
    (unit,) = units(recipe)
    settings = without_lost(recipe, ablation_settings(recipe), lost)
    if len(settings.arms) < 2:
        return None
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    workspace = Workspace(
        run=run,
        unit=unit,
        folder=recipe.run_folder / unit.folder,
        fingerprint="",
        resources=Resources(),
    )
    return table_markdown(read_table(workspace, settings))


def read_table(workspace: Workspace, settings: AblationSettings) -> AblationTable:
    """Returns the table of a run's finished units."""
    held_out = read_held_out(workspace, settings)
    resampling = Resampling(num_resamples=settings.resamples, seed=settings.seed)
    numbers = arms_bits(
        held_out,
        {arm.name: arm.models for arm in settings.arms},
        reference=settings.reference,
        resampling=resampling,
    )
    benchmarks, scores = _scores(workspace, settings, resampling)
    documents = read_documents(workspace, settings.groups)
    judged = {
        arm.name: read_arm(workspace, arm.name, documents)
        for arm in settings.arms
        if arm.score is not None
    }
    languages = read_languages(workspace, list(settings.families), documents, settings.seed)
    drifts = {arm: drift(each, settings.families, languages) for arm, each in judged.items()}
    rows = []
    for arm in settings.arms:
        of_scores, score_gaps = arm_numbers(scores.get(arm.name))
        rows.append(
            ArmRow(
                arm=arm.name,
                tokens_kept=_tokens_kept(judged.get(arm.name)),
                num_steps=_num_steps(workspace, arm),
                mean_length=_mean_length(drifts.get(arm.name)),
                mean_length_of_candidates=_mean_length_of_candidates(drifts.get(arm.name)),
                bits=numbers[arm.name].values,
                gaps=numbers[arm.name].gaps,
                scores=of_scores,
                score_gaps=score_gaps,
            )
        )
    return AblationTable(
        recipe_name=settings.recipe_name,
        reference=settings.reference,
        seeds=settings.seeds,
        resamples=settings.resamples,
        num_documents={group: held_out.num_documents(group) for group in held_out.groups},
        benchmarks=benchmarks,
        arms=tuple(rows),
        overlaps=tuple(overlaps(list(judged.values()))),
        drifts=tuple(drifts.values()),
        degraded=kept_degraded(workspace, list(judged.values())),
        contamination=_contamination(workspace, settings, list(judged.values())),
    )


def _scores(
    workspace: Workspace, settings: AblationSettings, resampling: Resampling
) -> tuple[Benchmarks | None, dict[str, ArmNumbers]]:
    """Returns what was graded, and the scores of the arms that were evaluated."""
    arms = {arm.name: arm.evaluated for arm in settings.arms if arm.evaluated}
    if not arms:
        return None, {}
    models = dict.fromkeys(model for of_arm in arms.values() for model in of_arm.values())
    folder = workspace.run.folder
    return arms_scores(
        {model: read_evaluation(folder / layout.evaluation(model)) for model in models},
        arms,
        reference=settings.reference if settings.reference in arms else None,
        resampling=resampling,
    )


def _contamination(
    workspace: Workspace, settings: AblationSettings, judged: Sequence[JudgedArm]
) -> tuple[ArmHits, ...] | None:
    if settings.scanned is None:
        return None
    hits = read_hits(workspace, settings.scanned)
    return tuple(arm_hits(arm, hits) for arm in judged)


def read_held_out(workspace: Workspace, settings: AblationSettings) -> HeldOut:
    """Returns what every model lost on the held-out documents.

    Raises ValueError where two models were measured on other documents.
    """
    models = dict.fromkeys(model for arm in settings.arms for model in arm.models.values())
    tables = {model: _documents(workspace, model) for model in models}
    first_model, first = next(iter(tables.items()))
    shared = ["source", "record_id", "num_bytes"]
    for model, table in tables.items():
        if not table.select(shared).equals(first.select(shared)):
            raise ValueError(
                f"{workspace.run.folder / layout.held_out(model)}: not measured on the documents "
                f"of {layout.held_out(first_model)}. Run all stages with `mira ablate`."
            )
    groups: dict[str, list[str]] = {}
    for source in dict.fromkeys(first["source"].to_pylist()):
        groups.setdefault(settings.groups[source], []).append(source)
    sources = [source for members in groups.values() for source in members]
    rows = {source: pc.equal(first["source"], source) for source in sources}
    return HeldOut(
        record_ids={name: first["record_id"].filter(rows[name]).to_pylist() for name in sources},
        bytes_D={
            name: first["num_bytes"].filter(rows[name]).to_numpy().astype(float) for name in sources
        },
        nats_D={
            model: {name: table["nats"].filter(rows[name]).to_numpy() for name in sources}
            for model, table in tables.items()
        },
        groups=dict(sorted(groups.items())),
    )


def _documents(workspace: Workspace, model: str) -> pa.Table:
    parts = workspace.upstream_parts(layout.held_out(model), DOCUMENTS)
    ((path, part),) = parts
    return read_part(path, part.digest, ["source", "record_id", "num_bytes", "nats"])


def _tokens_kept(judged: JudgedArm | None) -> int | None:
    return None if judged is None else sum(source.tokens_seen for source in judged.sources)


def _num_steps(workspace: Workspace, arm: ComparedArm) -> int | None:
    """Returns the steps that each of an arm's models was trained for; the base was not."""
    if arm.score is None:
        return None
    folder = workspace.run.folder / layout.checkpoints(next(iter(arm.models.values())))
    course = read_course(folder)
    if course is not None:
        return course.num_steps
    return int(orjson.loads((folder / layout.TRAINING).read_bytes())["num_steps"])


def _mean_length(found: Drift | None) -> float | None:
    return None if found is None else found.kept.mean


def _mean_length_of_candidates(found: Drift | None) -> float | None:
    return None if found is None else found.candidates.mean
