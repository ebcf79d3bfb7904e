"""The arithmetic of the page's what-if, run by a JavaScript engine where there is one."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mira_megatron import report
from mira_megatron.records import NUM_SLOTS

SCRIPT = Path(report.__file__).parent / "what_if.js"


def evaluated(expression: str) -> Any:
    """Returns what an expression after the script is, by way of JSON."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine; `make smoke-browser` runs the script, too")
    text = f"{SCRIPT.read_text()}\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([node, "-"], input=text, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_cuts_are_exact_for_every_written_trim() -> None:
    # 0.3334 is no number of thousandths; 0.2 * 15 and 0.07 * 100 are traps of binary fractions.
    trims = [f"0.{number:04d}" for number in range(0, 5000, 7)]
    trims += ["0", ".1", "0.3334", "0.2", "0.06666666666666667", "1e-05", "2.5e-1", "4999E-4"]
    found = evaluated(f"{json.dumps(trims)}.map(cutsOf)")
    for trim, cuts in zip(trims, found, strict=True):
        assert cuts == [math.floor(Fraction(trim) * n) for n in range(NUM_SLOTS + 1)], trim


def test_what_is_no_trim_is_refused() -> None:
    refused = ["0.5", "0.6", "-0.2", "", ".", "abc", "1e2", "NaN", "50%", "0x1"]
    assert evaluated(f"{json.dumps(refused)}.map(cutsOf)") == [None] * len(refused)


def test_finer_trim_than_thousandths_cuts_as_the_run_does() -> None:
    # Of 15 ratings 0.3334 cuts 5 from each end, and 0.333 only 4.
    ratings = [*[0] * 5, 1000, 2000, 3000, 4000, 5000, *[10_000] * 5]
    call = "trimmedMean({}, 0, Array(15).fill(false), {{cuts: cutsOf('{}'), minSlots: 5}})"
    assert evaluated(call.format(ratings, "0.3334")) == 3.0
    assert evaluated(call.format(ratings, "0.333")) != 3.0
