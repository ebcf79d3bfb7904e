"""The languages of the benchmarks, inside the sandbox that their programs will run in."""

from __future__ import annotations

import os

import pytest

from mira_megatron.doctor.eval_checks import language_findings
from mira_megatron.doctor.finding import INFO
from mira_megatron.eval.sandbox.best import best_sandbox

pytestmark = pytest.mark.integration


def test_every_language_runs_in_the_sandbox() -> None:
    findings = language_findings(best_sandbox())
    missing = [finding for finding in findings if finding.level != INFO]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"{missing[0].what}; {missing[0].way_out}")
    assert missing == []
