"""The peers that benchmarks run beside ours, in an environment of their own outside the clone.

It is made by the first benchmark that needs it (under a minute, 200 MB) from
requirements/peers.txt, as tests/environments/cached.sh makes the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_SCORE = Path(__file__).with_name("datatrove_score.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerScoring:
    """How long a peer took to ask about every record and to keep every answer."""

    records: int
    seconds: float
    cpu_seconds: float  # of the peer's process, without the server's


def peer_python(name: str = "peers") -> Path:
    """Returns the Python of requirements/NAME.txt; CalledProcessError where it cannot be made."""
    command = [str(_ROOT / "tests" / "environments" / "cached.sh"), name]
    environ = {**os.environ, "MIRA_PYTHON": os.environ.get("MIRA_PYTHON", sys.executable)}
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    return Path(made.stdout.strip()) / "bin" / "python"


def score_with_datatrove(
    url: str, records: Path, folder: Path, *, more: Sequence[str] = ()
) -> PeerScoring:
    """Returns what datatrove took for the records of a jsonl file (id, text) against a server.

    `folder` gets its answers and checkpoints and must not exist yet; `more` are words of
    datatrove_score.py. Raises CalledProcessError where it fails or loses a record.
    """
    command = [str(peer_python()), str(_SCORE), "--url", url, "--records", str(records)]
    command += ["--folder", str(folder), *more]
    # What this process imports is not the peer's.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    return PeerScoring(**json.loads(done.stdout.splitlines()[-1]))
