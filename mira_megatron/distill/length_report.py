"""How long a group's samples are, source by source, beside what fits a sequence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron.distill.sft_parts import IndexedPart

logger = logging.getLogger(__name__)


def length_report(
    parts: Sequence[IndexedPart], sources: Sequence[str], sequence_length: int
) -> dict[str, Any]:
    """Returns the content of lengths.json; a source without samples has null for its lengths."""
    of_sources = {
        source: _lengths([part.index for part in parts if part.source == source])
        for source in sources
    }
    return {"sequence_length": sequence_length, "sources": of_sources}


def log_lengths(group: str, report: dict[str, Any]) -> None:
    """Logs one line per source."""
    for source, lengths in report["sources"].items():
        if lengths["num_training"] + lengths["num_validation"] == 0:
            logger.warning("sft-data %s: %s has no usable label", group, source)
            continue
        prompt, answer = lengths["prompt_tokens"], lengths["answer_tokens"]
        logger.info(
            "sft-data %s: %s: %s training, %s validation; prompt tokens median %s, p95 %s, max %s; "
            "answer tokens median %s, max %s; %.0f %% shown whole; longest sample %s of %s",
            group,
            source,
            f"{lengths['num_training']:,}",
            f"{lengths['num_validation']:,}",
            f"{prompt['median']:,.0f}",
            f"{prompt['p95']:,.0f}",
            f"{prompt['max']:,}",
            f"{answer['median']:,.0f}",
            f"{answer['max']:,}",
            100 * lengths["shown_whole_fraction"],
            f"{lengths['longest_sample_tokens']:,}",
            f"{report['sequence_length']:,}",
        )


def _lengths(tables: Sequence[pa.Table]) -> dict[str, Any]:
    samples = [table.filter(pc.is_null(table["reason"])) for table in tables]
    prompt, answer, is_validation, is_whole = (
        np.concatenate([np.zeros(0, np.int64), *(table[name].to_numpy() for table in samples)])
        for name in ("num_prompt_tokens", "num_answer_tokens", "is_validation", "is_whole")
    )
    num = len(prompt)
    return {
        "num_training": num - int(is_validation.sum()),
        "num_validation": int(is_validation.sum()),
        "prompt_tokens": _distribution(prompt),
        "answer_tokens": _distribution(answer),
        "longest_sample_tokens": int((prompt + answer).max()) if num else None,
        "shown_whole_fraction": round(float(is_whole.mean()), 4) if num else None,
    }


def _distribution(lengths: npt.NDArray[np.int64]) -> dict[str, float] | None:
    if not len(lengths):
        return None
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "max": int(lengths.max()),
    }
