"""Forks children that read a part and end at once; says how many ended badly."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mira_megatron.shards import read_part

NUM_CHILDREN = 30

for _ in range(NUM_CHILDREN):
    child = os.fork()
    if not child:
        read_part(Path(sys.argv[1]), sys.argv[2], ["a", "b", "c", "d"])
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"a reading process ended with status {status}")
