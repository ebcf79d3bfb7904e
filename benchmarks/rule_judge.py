"""The rule judge on Python files of 8 KB: records per second on one core, to propose and to rate.

The files are real ones of the standard library, cut at a top-level statement. The peer is Python's
own `ast.parse` and `ast.walk` of the same files: what no judge that parses can do without. The bar
is a rate, because the requirement is one; a slower machine may miss it and be right.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import ast
import json
import random
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mira_megatron.records import NUM_SLOTS
from mira_megatron.rubric.rule_judge import dimension_names, propose, rate

NUM_FILES = 120
MIN_CHARS, MAX_CHARS = 7_600, 8_400
REPEATS = 3
BAR = 150.0


def main() -> int:
    """Returns the exit code."""
    warnings.simplefilter("ignore")  # about invalid escapes in the files
    texts = _texts()
    names = dimension_names("text")[:NUM_SLOTS]
    works: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("propose", lambda text: propose("text", text)),
        ("rate", lambda text: rate("text", text, names)),
    )
    is_fast = True
    for name, work in works:
        pairs = [(_seconds(work, texts), _seconds(_parse, texts)) for _ in range(REPEATS)]
        ours, peer = (len(texts) / min(side) for side in zip(*pairs, strict=True))
        figure = {
            "name": f"rule_judge_{name}_8kb_python",
            "ours": round(ours, 1),
            "peer": round(peer, 1),
            "unit": "records per CPU second, best of 3; peer: ast.parse and ast.walk alone",
            "ratio": round(ours / peer, 2),
            "bar": f"{BAR:g} records/s",
        }
        print(json.dumps(figure))
        is_fast = is_fast and ours >= BAR
    return 0 if is_fast else 1


def _parse(text: str) -> None:
    for _ in ast.walk(ast.parse(text)):
        pass


def _texts() -> Sequence[str]:
    """Returns the first NUM_FILES files, in an order drawn with a seed, that have such a cut."""
    library = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in library.rglob("*.py") if "-packages" not in str(path))
    random.Random(0).shuffle(paths)
    texts = [text for path in paths for text in _cut(path)]
    return texts[:NUM_FILES]


def _cut(path: Path) -> Iterator[str]:
    """Yields the file up to its last statement that ends where the size is right, if any."""
    try:
        text = path.read_text(encoding="utf-8")
        statements = ast.parse(text).body
    except (ValueError, SyntaxError):
        return
    lines = text.splitlines(keepends=True)
    heads = ("".join(lines[: statement.end_lineno]) for statement in reversed(statements))
    yield from [head for head in heads if MIN_CHARS <= len(head) <= MAX_CHARS][:1]


def _seconds(work: Callable[[str], object], texts: Sequence[str]) -> float:
    started = time.process_time()
    for text in texts:
        work(text)
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
