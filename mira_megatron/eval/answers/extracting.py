"""The program in any sample, and what a sample without one counts as."""

from __future__ import annotations

from mira_megatron.eval.benchmark import Benchmark
from mira_megatron.eval.verdicts import Extraction, Sample, Status


def extracted(benchmark: Benchmark, sample: Sample) -> Extraction:
    """Returns the program in a sample; one whose generation gave no text says why."""
    if sample.reason is not None:
        return Extraction(code=None, reason=sample.reason)
    return benchmark.extract(sample)


def no_code_status(sample: Sample) -> Status:
    """Returns what a sample without a program counts as: with more tokens it might have had one.

    A truncated answer that holds a program all the same is graded as any other.
    """
    return Status.TRUNCATED if sample.is_truncated else Status.NO_CODE
