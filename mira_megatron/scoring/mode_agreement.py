"""How far a cheaper answer mode ranks a group's records as full answers do, before it is used.

Reads   records/<source>/part-*.parquet of the group's sources, its anchors, and its scorer
Writes  mode_agreement/<rubric>/<group>/<mode>/{full,mode,again}-<source>-*.parquet: the ratings of
            a sample, asked in full, in the mode, and in the mode once more with another seed
        agreement.parquet: per anchor, the mode against full and against itself (AGREEMENT_SCHEMA)
        agreement.json: the medians over the anchors, and what was asked

A unit within the stage `score`, one per group whose mode is not `full`, where
`score.min_mode_agreement` is set. What it measures stays, whatever is made of it: `check_mode`
compares it with the setting when a source's turn has come. It decides whether a group is scored so,
never what its ratings are, so it is no input of theirs.

Shape letters: R records, A anchor slots. NaN stands for a score that was not given, here only.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import Counts
from mira_megatron.records import NUM_SLOTS, Anchor
from mira_megatron.reliability.cells import MIN_PAIRS, spearman
from mira_megatron.scoring.group_scorer import GroupScorer, rating_form
from mira_megatron.scoring.judging import JudgedPart, judge_parts, sampled_parts
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 1
AGREEMENT, SUMMARY = "agreement.parquet", "agreement.json"
# Far from the seeds of further attempts, which count on from the first one's.
_OTHER_SEED = 1 << 20

_TOO_FEW = "too_few_records"
_ONE_SCORE_IN_FULL = "one_score_in_full"  # nothing to rank
_ONE_SCORE_IN_MODE = "one_score_in_mode"

AGREEMENT_SCHEMA = pa.schema(
    [
        pa.field("anchor_id", pa.string(), nullable=False),
        pa.field("anchor_name", pa.string(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("rho", pa.float64()),
        pa.field("mean_abs_difference", pa.float64()),
        pa.field("reason", pa.string()),
        pa.field("n_again", pa.int64(), nullable=False),
        pa.field("rho_again", pa.float64()),
        pa.field("mean_abs_difference_again", pa.float64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorAgreement:
    """A mode against full answers, and against itself with another seed, on one anchor."""

    anchor_id: str
    anchor_name: str
    n: int  # records that have a score in full and in the mode
    rho: float | None  # Spearman's, in [-1, 1]
    mean_abs_difference: float | None  # of the scores, 0-10; None without a pair
    reason: str | None  # why rho is None
    n_again: int  # records that have a score in the mode both times
    rho_again: float | None
    mean_abs_difference_again: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeSettings:
    """What one group's unit needs."""

    sources: tuple[str, ...]
    scorer: GroupScorer


def mode_units(scorer: GroupScorer, sources: Sequence[str]) -> list[Unit]:
    """Returns the unit of one group, none where nothing is to be measured."""
    if scorer.mode_agreement is None:
        return []
    full = scorer.answering("full", scorer.judge.seed)
    return [
        Unit(
            stage="score",
            name=f"answer mode of {scorer.group}",
            folder=scorer.mode_agreement,
            version=VERSION,
            config={
                **scorer.fingerprinted,
                "full_prompt_key": full.fingerprinted["prompt_key"],
                "mode_agreement_records": scorer.judge.config.mode_agreement_records,
                "seed": scorer.judge.seed,
            },
            upstream=(*map(layout.records, sources), *scorer.upstream),
            raw_files=scorer.raw_files,
            work="mira_megatron.scoring.mode_agreement:measure",
            settings=ModeSettings(sources=tuple(sources), scorer=scorer),
        )
    ]


def measure(workspace: Workspace, settings: ModeSettings) -> WorkResult:
    """Writes the sample's ratings in both modes, and how they agree."""
    scorer, seed = settings.scorer, settings.scorer.judge.seed
    mode = scorer.judge.config.answer_mode
    askings = {
        "full": scorer.answering("full", seed),
        "mode": scorer,
        "again": scorer.answering(mode, seed + _OTHER_SEED),
    }
    scores: dict[str, npt.NDArray[np.float64]] = {}
    outcomes: Counter[str] = Counter()
    rows: dict[str, int] = {}
    for asking, asked in askings.items():
        form = rating_form(workspace, asked)
        parts = _sample(workspace, settings, stem=asking)
        ended = sum(judge_parts(workspace, parts, form, form.judge), Counter[str]())
        outcomes.update({f"{asking}: {how}": num for how, num in ended.items()})
        rows |= {part.output.name: part.num_records for part in parts}
        scores[asking] = _scores(parts)
    found = compare(scores["full"], scores["mode"], scores["again"], anchors=form.anchors)
    table = pa.Table.from_pylist([asdict(each) for each in found], schema=AGREEMENT_SCHEMA)
    write_parquet(workspace.folder / AGREEMENT, table)
    num_records = len(scores["mode"])
    summary = {
        "schema_version": 1,
        "group": scorer.group,
        "model": form.judge.model,
        "answer_mode": mode,
        "num_records": num_records,
        **_medians(found),
    }
    write_json(workspace.folder / SUMMARY, summary)
    logger.info(
        "%s: %s against full on %d records: Spearman %s, mean difference %s of 10; asked again "
        "with another seed: %s, %s (medians of %d anchors)",
        workspace.unit.label,
        mode,
        num_records,
        *(_shown(value) for value in _medians(found).values()),
        len(found),
    )
    return WorkResult(
        counts=Counts(
            num_in=num_records, num_out=outcomes.total(), totals=dict(sorted(outcomes.items()))
        ),
        rows={**rows, AGREEMENT: len(found)},
    )


def check_mode(run_folder: Path, scorer: GroupScorer) -> None:
    """Raises ValueError where a group's answer mode agrees too little with full answers."""
    least = scorer.judge.config.min_mode_agreement
    if scorer.mode_agreement is None or least is None:
        return
    path = run_folder / scorer.mode_agreement / SUMMARY
    if not path.is_file():
        raise ValueError(f"{path}: not measured yet. Run `mira score`, which measures it first.")
    summary = json.loads(path.read_bytes())
    agreement, mode, group = summary["agreement"], summary["answer_mode"], scorer.group
    if agreement is None or agreement < least:
        raise ValueError(
            f"{path}: in group {group}, answer_mode={mode} agrees with full answers to a Spearman "
            f"of {_shown(agreement)} (median of the anchors, {summary['num_records']} records), "
            f"below min_mode_agreement={least}. Score the group in full with "
            f"scorers.{group}.answer_mode=full, or accept less with a lower "
            "score.min_mode_agreement; the file beside it has every anchor"
        )


def compare(
    full_RA: npt.NDArray[np.float64],
    mode_RA: npt.NDArray[np.float64],
    again_RA: npt.NDArray[np.float64],
    *,
    anchors: Sequence[Anchor],
) -> list[AnchorAgreement]:
    """Returns one row per anchor, each over the records that have both scores."""
    found = []
    for slot, anchor in enumerate(anchors):
        full, mode = _pairs(full_RA[:, slot], mode_RA[:, slot])
        first, again = _pairs(mode_RA[:, slot], again_RA[:, slot])
        rho, _ = spearman(mode, full)
        found.append(
            AnchorAgreement(
                anchor_id=anchor.anchor_id,
                anchor_name=anchor.name,
                n=len(full),
                rho=rho,
                mean_abs_difference=_mean_difference(full, mode),
                reason=None if rho is not None else _reason(full),
                n_again=len(first),
                rho_again=spearman(again, first)[0],
                mean_abs_difference_again=_mean_difference(first, again),
            )
        )
    return found


def agreement(found: Sequence[AnchorAgreement]) -> float | None:
    """Returns the median Spearman over the anchors, None where none can be compared.

    An anchor that full answers give one score throughout has nothing to rank and is left out. Any
    other without a correlation counts as 0: a mode that gives most anchors one score throughout
    must not look better for it.
    """
    rhos = [each.rho or 0.0 for each in found if each.reason != _ONE_SCORE_IN_FULL]
    return median(rhos) if any(each.n for each in found) and rhos else None


def _medians(found: Sequence[AnchorAgreement]) -> dict[str, float | None]:
    return {
        "agreement": agreement(found),
        "mean_abs_difference": _median([each.mean_abs_difference for each in found]),
        "agreement_again": _median([each.rho_again for each in found]),
        "mean_abs_difference_again": _median([each.mean_abs_difference_again for each in found]),
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _pairs(
    some_R: npt.NDArray[np.float64], others_R: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    is_pair = ~(np.isnan(some_R) | np.isnan(others_R))
    return some_R[is_pair], others_R[is_pair]


def _reason(full: npt.NDArray[np.float64]) -> str:
    """Returns why there is no rank correlation with these scores."""
    if len(full) < MIN_PAIRS:
        return _TOO_FEW
    return _ONE_SCORE_IN_FULL if (full == full[0]).all() else _ONE_SCORE_IN_MODE


def _mean_difference(
    some: npt.NDArray[np.float64], others: npt.NDArray[np.float64]
) -> float | None:
    return float(np.abs(some - others).mean()) if len(some) else None


def _sample(workspace: Workspace, settings: ModeSettings, *, stem: str) -> list[JudgedPart]:
    """Returns the parts of the group's sample: as many records of each of its sources."""
    num_records = settings.scorer.judge.config.mode_agreement_records
    per_source = -(-num_records // len(settings.sources))
    return [
        part
        for source in settings.sources
        for part in sampled_parts(
            workspace,
            source,
            per_source,
            seed=settings.scorer.judge.seed,
            purpose="mode_agreement",
            stem=f"{stem}-{source}",
        )
    ]


def _scores(parts: Sequence[JudgedPart]) -> npt.NDArray[np.float64]:
    """Returns scores as (records, slots), in the order of the parts."""
    rows = [
        scores
        for part in parts
        for scores in pq.read_table(part.output, columns=["scores"])["scores"].to_pylist()
    ]
    return np.array(rows, np.float64).reshape(-1, NUM_SLOTS)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
