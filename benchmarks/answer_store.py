"""Keeping answers and finding them again: the store beside a bare file, sqlite and a dict.

(a) An answer of 2.5 KB is encoded and kept, so that kill -9 does not lose it: `put`; the same line
written to a buffered file and flushed; a row of sqlite, committed (write-ahead log, not forced to
disk for each, which is sqlite at its quickest). CPU seconds of all threads; making a segment of
what was put, which happens while answers are waited for, is a figure of its own.

(b) A folder of a million answers is opened anew and one shard's 10,000 are looked up, and 10,000
from anywhere: ours, and as it was done before, with every line parsed and its place put into a
dict. Each in a process of its own, CPU seconds and peak memory; the same answers, checked first.
That the peer reads 2.5 GB for it and ours a few MB is left out: files may be in memory or not.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.scoring.answer_store import AnswerStore, Charged, StoredAnswer

NUM_PUT = 30_000
NUM_COMMITTED = 5_000
NUM_STORED = 1_000_000
NUM_ASKED = 10_000
TEXT_CHARS = 2_300  # with the names of its fields a line of 2.5 KB
REPEATS = 3
PUT_BAR = 0.5  # of the speed of a bare file
SQLITE_BAR = 2.0
OPEN_BAR = 10.0
SHARD_BAR = 4.0  # opening included


def main() -> int:
    """Returns the exit code."""
    if len(sys.argv) > 1:
        how, folder, which = sys.argv[1:]
        print(json.dumps({"ours": _reopened, "peer": _read_into_dict}[how](Path(folder), which)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        figures = [*_put_figures(Path(folder, "put")), *_open_figures(Path(folder, "answers"))]
    for figure in figures:
        print(json.dumps(figure))
    return int(any(f["bar"] is not None and f["ratio"] < f["bar"] for f in figures))


def _put_figures(folder: Path) -> Iterator[dict[str, Any]]:
    folder.mkdir()
    answers = list(_answers(NUM_PUT))
    best: dict[str, float] = {}
    for repeat in range(REPEATS):
        store = AnswerStore(folder / f"store-{repeat}")
        file = Path(folder, f"file-{repeat}")
        rows = Path(folder, f"rows-{repeat}.sqlite")

        def put(store: AnswerStore = store) -> None:
            for answer in answers:
                store.put(answer)

        def make_segment(store: AnswerStore = store) -> None:
            with store:
                pass

        def write(file: Path = file) -> None:
            with file.open("wb") as lines:
                for answer in answers:
                    lines.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
                    lines.flush()

        def commit(rows: Path = rows) -> None:
            _commit(rows, answers[:NUM_COMMITTED])

        works = {"put": put, "write": write, "commit": commit, "segment": make_segment}
        for name, work in works.items():
            num_answers = NUM_COMMITTED if name == "commit" else NUM_PUT
            microseconds = _cpu_seconds(work) / num_answers * 1e6
            best[name] = min(best.get(name, microseconds), microseconds)
        if {stored.key for stored in store.known([a.key for a in answers]).values()} != {
            answer.key for answer in answers
        }:
            sys.exit("the store does not give back what was put: no speed is worth anything")
    unit = f"CPU microseconds per answer of 2.5 KB, best of {REPEATS}; peer: "
    yield _figure("answer_put", best["put"], best["write"], f"{unit}orjson, write, flush", PUT_BAR)
    sqlite_unit = f"{unit}sqlite, one commit per row"
    yield _figure("answer_put_beside_sqlite", best["put"], best["commit"], sqlite_unit, SQLITE_BAR)
    kept = best["put"] + best["segment"]
    yield _figure("answer_put_and_made_a_segment", kept, best["commit"], sqlite_unit, None)


def _commit(path: Path, answers: Sequence[StoredAnswer]) -> None:
    rows = sqlite3.connect(path)
    rows.execute("PRAGMA journal_mode=WAL")
    rows.execute("PRAGMA synchronous=NORMAL")
    rows.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer BLOB)")
    for answer in answers:
        rows.execute("INSERT INTO answers VALUES (?, ?)", (answer.key, orjson.dumps(answer)))
        rows.commit()
    rows.close()


def _open_figures(folder: Path) -> Iterator[dict[str, Any]]:
    folder.mkdir()
    with (folder / "earlier.jsonl").open("wb") as lines:
        for answer in _answers(NUM_STORED):
            lines.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
    peer = {which: _measured("peer", folder, which) for which in ("shard", "anywhere")}
    AnswerStore(folder)  # takes the journal in
    ours = {which: _measured("ours", folder, which) for which in ("shard", "anywhere")}
    if any(ours[which]["texts"] != peer[which]["texts"] for which in ours):
        sys.exit("the two sides find other answers: no speed is worth anything")
    unit = f"of {NUM_STORED:,} answers; peer: every line parsed into a dict of places"
    pairs = ours["shard"], peer["shard"]
    opened = [each["open_seconds"] for each in pairs]
    yield _figure("answers_reopened", *opened, f"CPU seconds, {unit}", OPEN_BAR)
    for which, bar in (("shard", SHARD_BAR), ("anywhere", None)):
        seconds = [each[which]["seconds"] for each in (ours, peer)]
        what = f"CPU seconds for opening and {NUM_ASKED:,} lookups ({which}), {unit}"
        yield _figure(f"answers_found_{which}", *seconds, what, bar)
    peaks = [each["peak_mb"] for each in pairs]
    yield _figure("answers_reopened_memory", *peaks, f"MB at the peak, a shard's {unit}", 1.0)


def _measured(how: str, folder: Path, which: str) -> dict[str, Any]:
    """Returns what a process of its own says, the quicker of two."""
    command = [sys.executable, __file__, how, str(folder), which]
    done = [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(2)
    ]
    return min(done, key=lambda said: float(said["seconds"]))


def _reopened(folder: Path, which: str) -> dict[str, Any]:
    started = time.process_time()
    store = AnswerStore(folder)
    opened = time.process_time()
    known = store.known(_asked(which))
    return _said(started, opened, (stored.text or "" for stored in known.values()))


def _read_into_dict(folder: Path, which: str) -> dict[str, Any]:
    started = time.process_time()
    places: dict[bytes, tuple[Path, int, int]] = {}
    for path in folder.glob("*.jsonl"):
        offset = 0
        with path.open("rb") as lines:
            for line in lines:
                key = bytes.fromhex(orjson.loads(line)["key"])
                places.setdefault(key, (path, offset, len(line)))
                offset += len(line)
    opened = time.process_time()
    texts = []
    for key in _asked(which):
        path, offset, num_bytes = places[bytes.fromhex(key)]
        with path.open("rb") as lines:
            lines.seek(offset)
            texts.append(orjson.loads(lines.read(num_bytes))["text"])
    return _said(started, opened, texts)


def _said(started: float, opened: float, texts: Iterator[str] | Sequence[str]) -> dict[str, Any]:
    found = sorted(texts)
    seconds = time.process_time() - started
    # Not getrusage: a process starts there with the peak of the one that started it.
    peak_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    return {
        "open_seconds": opened - started,
        "seconds": seconds,
        "peak_mb": peak_kb / 1e3,
        "texts": blake2b("\n".join(found).encode()).hexdigest(),
    }


def _asked(which: str) -> list[str]:
    """Returns keys of one shard, in another order than they were answered in, or of anywhere."""
    first = NUM_STORED // 2
    numbers = (
        range(first, first + NUM_ASKED)
        if which == "shard"
        else range(0, NUM_STORED, NUM_STORED // NUM_ASKED)
    )
    keys = list(map(_key, numbers))
    random.Random(0).shuffle(keys)
    return keys


def _answers(count: int) -> Iterator[StoredAnswer]:
    """Yields answers whose texts are cut out of one long text, far from each other."""
    generator = random.Random(0)
    words = [f"{generator.getrandbits(8 * generator.randint(1, 5)):x}" for _ in range(5_000)]
    text = " ".join(generator.choices(words, k=1_000_000))
    answer = StoredAnswer(
        key="",
        model="scorer",
        charged=Charged(num_prompt_tokens=4_000, num_output_tokens=600),
        text=None,
        reasoning=None,
        finish_reason="stop",
        num_prompt_tokens=4_000,
        num_output_tokens=600,
        failure=None,
        failure_detail=None,
    )
    for number in range(count):
        start = number * 1_000_003 % (len(text) - TEXT_CHARS)
        yield replace(answer, key=_key(number), text=text[start : start + TEXT_CHARS])


def _key(number: int) -> str:
    return blake2b(number.to_bytes(8, "big"), digest_size=16).hexdigest()


def _figure(name: str, ours: float, peer: float, unit: str, bar: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "unit": unit,
        "ratio": round(peer / ours, 2),
        "bar": bar,
    }


def _cpu_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
