"""One of our scripts as a job: it runs a program that somebody else wrote, as its request says."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mira_megatron.eval.sandbox.contract import Job, Limits
from mira_megatron.eval.sandbox.interpreter import Interpreter

# A set of texts has the same order in every run, gold's and a sample's: Python is not started with
# -I, which would not look at this.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


def script_job(
    interpreter: Interpreter,
    script: str,
    files: Mapping[str, bytes],
    request: Mapping[str, object],
    limits: Limits,
) -> Job:
    """Returns the job that starts `script`, one of `files`, and hands it its request as JSON."""
    return Job(
        argv=(interpreter.path, "-B", "-s", script),
        files=files,
        stdin=json.dumps(request).encode(),
        limits=limits,
        read_only=interpreter.read_only,
        environment=_ENVIRONMENT,
    )
