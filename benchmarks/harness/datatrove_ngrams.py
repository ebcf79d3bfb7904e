"""Looks for n-grams of tasks in records as the filter of datatrove does; one process.

Runs in the environment of requirements/peers.txt (see peers.py). datatrove's own steps are used:
simplify_text, ngrams of 12 words, its 64-bit hash, one look-up each. Its filter would also have a
linguistic tokenizer find the words, which is left out to its favour: here they are split at spaces.
Prints one line of JSON: seconds, and the records that hold an n-gram of a task.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from datatrove.utils.hashing import HashConfig, create_hash_func
from datatrove.utils.text import ngrams, simplify_text

NUM_WORDS = 12  # its default

_hash = create_hash_func(HashConfig(precision=64), bytes)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", required=True, type=Path, help="jsonl of id and text")
    parser.add_argument("--tasks", required=True, type=Path, help="jsonl of text")
    words = parser.parse_args()
    known = {each for row in _rows(words.tasks) for each in _hashes(row["text"])}
    records = list(_rows(words.records))
    started = time.perf_counter()
    found = [row["id"] for row in records if not known.isdisjoint(_hashes(row["text"]))]
    print(json.dumps({"seconds": time.perf_counter() - started, "found": found}))
    return 0


def _hashes(text: str) -> Iterator[int]:
    for gram in ngrams(simplify_text(text).split(), NUM_WORDS):
        yield _hash(" ".join(gram).encode())


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    sys.exit(main())
