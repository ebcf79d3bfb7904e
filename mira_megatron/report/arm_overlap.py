"""What arms have in common, and how each differs from what it chose from.

Shape letters: D documents of one source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.report.outcomes import JudgedArm, Outcome
from mira_megatron.report.rating_sample import draw
from mira_megatron.report.score_bins import is_candidate
from mira_megatron.stage import Workspace

MAX_LANGUAGE_RECORDS = 6000  # whose passed-through language is looked up
_LANGUAGE_KEYS = ("language", "lang", "programming_language")
_MOST_LANGUAGES = 12
NO_LANGUAGE, OTHER_LANGUAGES = "none named", "all others"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """Two arms' kept tokens, each document counted once."""

    arm: str
    other: str
    tokens_in_both: int
    tokens_in_either: int
    tokens_of_arm: int
    tokens_of_other: int

    @property
    def jaccard(self) -> float | None:
        """Returns the tokens in both as a share of those in either."""
        return self.tokens_in_both / self.tokens_in_either if self.tokens_in_either else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """How long documents are, in tokens."""

    num_documents: int
    tokens: int
    mean: float | None
    median: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """One arm beside its candidates; shares are of tokens."""

    arm: str
    candidates: Lengths
    kept: Lengths
    families: tuple[tuple[str, float, float], ...]  # name, share of candidates, share of kept
    sources: tuple[tuple[str, float, float], ...]  # likewise
    languages: tuple[tuple[str, float, float], ...]  # likewise, estimated; empty: none named


def overlaps(arms: Sequence[JudgedArm]) -> list[Overlap]:
    """Returns every pair of arms, in their order."""
    return [_overlap(one, other) for one, other in combinations(arms, 2)]


def _overlap(one: JudgedArm, other: JudgedArm) -> Overlap:
    both = of_one = of_other = 0
    for left, right in zip(one.sources, other.sources, strict=True):
        is_left_D, is_right_D = (each.outcomes_D == Outcome.KEPT for each in (left, right))
        both += int(left.tokens_D[is_left_D & is_right_D].sum())
        of_one += int(left.tokens_D[is_left_D].sum())
        of_other += int(left.tokens_D[is_right_D].sum())
    return Overlap(
        arm=one.arm,
        other=other.arm,
        tokens_in_both=both,
        tokens_in_either=of_one + of_other - both,
        tokens_of_arm=of_one,
        tokens_of_other=of_other,
    )


def drift(
    arm: JudgedArm,
    families: Mapping[str, str],
    languages: Mapping[str, tuple[npt.NDArray[np.int64], list[str]]],
) -> Drift:
    """Returns how an arm's kept documents differ from its candidates.

    `families` of sources without records may be missing; `languages` are those of some documents.
    """
    lengths, kept_lengths = [], []
    of_family: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    of_source: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    of_language: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for judged in arm.sources:
        is_candidate_D, is_kept_D = is_candidate(judged), judged.outcomes_D == Outcome.KEPT
        lengths.append(judged.tokens_D[is_candidate_D])
        kept_lengths.append(judged.tokens_D[is_kept_D])
        family = families.get(judged.source, "adopted, family unknown")
        for is_member_D, by_family, by_source, by_language in zip(
            (is_candidate_D, is_kept_D), of_family, of_source, of_language, strict=True
        ):
            tokens = int(judged.tokens_D[is_member_D].sum())
            by_family[family] += tokens
            by_source[judged.source] += tokens
            rows, named = languages.get(judged.source, (np.empty(0, dtype=np.int64), []))
            _add_languages(by_language, judged.tokens_D, is_member_D, tokens, rows, named)
    has_languages = any(name != NO_LANGUAGE for name in of_language[0])
    return Drift(
        arm=arm.arm,
        candidates=_lengths(lengths),
        kept=_lengths(kept_lengths),
        families=_shares(*of_family),
        sources=_shares(*of_source),
        languages=_shortened(_shares(*of_language)) if has_languages else (),
    )


def _add_languages(
    found: Counter[str],
    tokens_D: npt.NDArray[np.int64],
    is_member_D: npt.NDArray[np.bool_],
    tokens: int,
    rows: npt.NDArray[np.int64],
    named: Sequence[str],
) -> None:
    """Adds a source's tokens by language, in the proportions of its sampled documents."""
    sampled: Counter[str] = Counter()
    for row, name in zip(rows.tolist(), named, strict=True):
        if is_member_D[row]:
            sampled[name] += int(tokens_D[row])
    total = sampled.total()
    for name, part in sampled.items():
        found[name] += round(tokens * part / total) if total else 0
    if not total:
        found[NO_LANGUAGE] += tokens


def read_languages(
    workspace: Workspace, sources: Sequence[str], documents: Mapping[str, pa.Table], seed: int
) -> dict[str, tuple[npt.NDArray[np.int64], list[str]]]:
    """Returns some documents of every source with the language that their meta names."""
    found = {}
    for source in sources:
        trainable = np.flatnonzero(~documents[source]["repeats_held_out"].to_numpy())
        number = MAX_LANGUAGE_RECORDS // len(sources)
        rows = draw(trainable, number, f"{seed}:language:{source}")
        found[source] = rows, _read_languages(workspace, layout.records(source), rows)
    return found


def _read_languages(workspace: Workspace, folder: str, rows: npt.NDArray[np.int64]) -> list[str]:
    languages: list[str] = []
    start = 0
    for path, part in workspace.upstream_parts(folder, ".parquet"):
        assert part.num_rows is not None, path
        here = rows[(rows >= start) & (rows < start + part.num_rows)] - start
        start += part.num_rows
        if len(here):
            # Not shards.read_part: a digest would read the texts of the whole corpus for one
            # short column, and the stages before have checked these bytes.
            meta = pq.read_table(path, columns=["meta"])["meta"].take(pa.array(here))
            languages += map(_language, meta.to_pylist())
    return languages


def _language(meta: str | None) -> str:
    """Returns the language that a record's meta names; strangers wrote it, in whatever shape."""
    if meta is None:
        return NO_LANGUAGE
    try:
        content = orjson.loads(meta)
    except orjson.JSONDecodeError:
        return NO_LANGUAGE
    for key in _LANGUAGE_KEYS if isinstance(content, dict) else ():
        name = content.get(key)
        if isinstance(name, str) and name:
            return name[:40]
    return NO_LANGUAGE


def _lengths(of_sources: Sequence[npt.NDArray[np.int64]]) -> Lengths:
    lengths = np.concatenate(of_sources) if of_sources else np.empty(0, dtype=np.int64)
    return Lengths(
        num_documents=len(lengths),
        tokens=int(lengths.sum()),
        mean=float(lengths.mean()) if len(lengths) else None,
        median=float(np.median(lengths)) if len(lengths) else None,
    )


def _shares(candidates: Counter[str], kept: Counter[str]) -> tuple[tuple[str, float, float], ...]:
    """Returns the shares in both, most of the candidates first."""
    of_candidates, of_kept = max(candidates.total(), 1), max(kept.total(), 1)
    names = sorted(candidates | kept, key=lambda name: (-candidates[name], name))
    return tuple((name, candidates[name] / of_candidates, kept[name] / of_kept) for name in names)


def _shortened(
    shares: tuple[tuple[str, float, float], ...],
) -> tuple[tuple[str, float, float], ...]:
    rest = shares[_MOST_LANGUAGES:]
    if not rest:
        return shares
    others = (OTHER_LANGUAGES, sum(each[1] for each in rest), sum(each[2] for each in rest))
    return (*shares[:_MOST_LANGUAGES], others)
