"""Reading judges' answers: ours beside two regular expressions, the same answers, one core.

The peer is what a user would write: one pattern over the slot lines, one over the four fields, and
the same tuples as the outcome. It knows no damage; what it then misses or misreads is not counted
against it. Ours must read every undamaged answer exactly, or no speed is worth anything.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below a bar.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from random import Random

from mira_megatron.rubric.replies import ParsedReply, parse_reply

NUM_ANSWERS = 20_000
BLOCK = 1_000
REPEATS = 3
BARS = {0.1: 2.0, 1.0: 0.7}  # share of damaged answers, and how fast against the peer

# The published anchors of a text group: names repeat, and hold dashes, slashes and brackets.
NAMES = (
    "Practical Actionability",
    "Practical Actionability",
    "Analytical Depth",
    "Pedagogical Clarity",
    "Reasoning Transparency",
    "Signal-to-Noise Ratio",
    "Repository Tree Navigation",
    "Document Structure & Formatting",
    "Practical Actionability",
    "Signal-to-Noise Ratio",
    "Training Utility",
    "Code Snippet Fidelity",
    "Format Compliance (SEARCH/REPLACE)",
    "Safety & Harmlessness",
    "Output Format Adherence",
)
_TEXT = (
    "The record shows that its functions and modules are documented in 14 of 20 places with short "
    "clear sentences, names that tell what comes back; tests for most branches, typed arguments, "
    "error messages with a next step, but repeated long lines, an unused import (os) and two "
    "copied blocks of about 30 lines: a reader follows input/output steps from file to file"
)
_WORDS = tuple(_TEXT.split())

_SLOT = re.compile(r"\[A(\d+)\]\s*(.+?):\s*(\d+(?:\.\d+)?)\s*/\s*10\s*[—–-]+\s*(.*)")
_FIELD = re.compile(r"^(overall|training_recommendation|domain_tag|brief):\s*(.*)$", re.MULTILINE)

_Answer = tuple[
    tuple[float | None, ...],
    tuple[str | None, ...],
    float | None,
    str | None,
    str | None,
    str | None,
]


def main() -> int:
    """Returns the exit code."""
    random = Random(0)
    whole = [_answer(random) for _ in range(NUM_ANSWERS)]
    misread = sum(_ours(text) != expected for text, expected in whole)
    if misread:
        sys.stderr.write(f"{misread:,} of {NUM_ANSWERS:,} undamaged answers were misread\n")
        return 1
    is_fast = True
    for share, bar in BARS.items():
        texts = [_damaged(text, random) if random.random() < share else text for text, _ in whole]
        ours, peer = _best_cpu_seconds(texts)
        figure = {
            "name": f"parse_replies_{share:.0%}_damaged".replace("%", "_percent"),
            "ours": round(ours, 4),
            "peer": round(peer, 4),
            "unit": f"CPU seconds for {NUM_ANSWERS:,} answers, best of {REPEATS}; "
            "peer: two regular expressions",
            "ratio": round(peer / ours, 2),
            "bar": bar,
        }
        print(json.dumps(figure))
        is_fast = is_fast and peer / ours >= bar
    return 0 if is_fast else 1


def parse_reply_of_names(text: str) -> ParsedReply:
    """Ours."""
    return parse_reply(text, NAMES)


def two_patterns(text: str) -> _Answer:
    """The peer: every slot line and every field that looks as asked for."""
    scores: list[float | None] = [None] * len(NAMES)
    rationales: list[str | None] = [None] * len(NAMES)
    for found in _SLOT.finditer(text):
        slot = int(found[1]) - 1
        if 0 <= slot < len(NAMES):
            scores[slot], rationales[slot] = float(found[3]), found[4].strip()
    fields = {found[1]: found[2].strip() for found in _FIELD.finditer(text)}
    try:
        overall = float(fields["overall"])
    except (KeyError, ValueError):
        overall = None
    return (
        tuple(scores),
        tuple(rationales),
        overall,
        fields.get("training_recommendation"),
        fields.get("domain_tag"),
        fields.get("brief"),
    )


def _ours(text: str) -> _Answer:
    parsed = parse_reply(text, NAMES)
    return (
        parsed.scores,
        parsed.rationales,
        parsed.overall,
        parsed.training_recommendation,
        parsed.domain_tag,
        parsed.brief,
    )


def _best_cpu_seconds(texts: Sequence[str]) -> tuple[float, float]:
    """Returns our seconds and the peer's: the best of each block's repeats, block by block in turn.

    Both sides meet the same neighbours on the machine so, and neither pays for a passing one.
    """
    ours = peer = 0.0
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        pairs = [
            (_cpu_seconds(parse_reply_of_names, block), _cpu_seconds(two_patterns, block))
            for _ in range(REPEATS)
        ]
        ours += min(pair[0] for pair in pairs)
        peer += min(pair[1] for pair in pairs)
    return ours, peer


def _cpu_seconds(parse: Callable[[str], object], texts: Sequence[str]) -> float:
    started = time.process_time()
    for text in texts:
        parse(text)
    return time.process_time() - started


def _answer(random: Random) -> tuple[str, _Answer]:
    """Returns an answer of about 2.5 KB as it was asked for, and what it says."""
    scores = tuple(random.randint(0, 10) for _ in NAMES)
    rationales = tuple(_sentence(random, random.randint(16, 28)) for _ in NAMES)
    overall, brief = random.randint(0, 100), _sentence(random, 20)
    recommendation = random.choice(("keep", "downsample", "drop"))
    lines = [
        f"[A{slot}] {name}: {score}/10 — {rationale}"
        for slot, (name, score, rationale) in enumerate(
            zip(NAMES, scores, rationales, strict=True), start=1
        )
    ]
    lines += [f"overall: {overall}", f"training_recommendation: {recommendation}"]
    lines += ["domain_tag: python-library", f"brief: {brief}"]
    summary = (float(overall), recommendation, "python-library", brief)
    return "\n".join(lines), (tuple(map(float, scores)), rationales, *summary)


def _sentence(random: Random, num_words: int) -> str:
    return " ".join(random.choices(_WORDS, k=num_words))


def _damaged(text: str, random: Random) -> str:
    """Returns the answer with one to three of the usual liberties, in a few lines or in all."""
    lines = text.split("\n")
    chosen = random.sample(range(len(_DAMAGES)), k=random.choice((1, 1, 1, 2, 2, 3)))
    for index in sorted(chosen):  # those that move lines come last
        lines = _DAMAGES[index](lines, random)
    return "\n".join(lines)


def _in_some(change: Callable[[str], str]) -> Callable[[list[str], Random], list[str]]:
    """Damages one to three slot lines."""

    def damage(lines: list[str], random: Random) -> list[str]:
        chosen = random.sample(range(15), k=random.randint(1, 3))
        return [change(line) if slot in chosen else line for slot, line in enumerate(lines)]

    return damage


def _in_all(change: Callable[[str], str]) -> Callable[[list[str], Random], list[str]]:
    return lambda lines, _: [change(line) for line in lines]


def _reworded(line: str) -> str:
    marker, _, rest = line.partition("] ")
    name, colon, scored = rest.partition(": ")
    return f"{marker}] Overall {name.lower()}{colon}{scored}"


def _shuffled(lines: list[str], random: Random) -> list[str]:
    slots, rest = lines[:15], lines[15:]
    random.shuffle(slots)
    return slots + rest


def _without_one(lines: list[str], random: Random) -> list[str]:
    lines = list(lines)
    del lines[random.randrange(15)]
    return lines


def _with_one_twice(lines: list[str], random: Random) -> list[str]:
    slot = random.randrange(15)
    return [*lines[:slot], lines[slot], *lines[slot:]]


def _wrapped(line: str) -> str:
    middle = line.find(" ", len(line) // 2)
    return line if middle < 0 else f"{line[:middle]}\n  {line[middle + 1 :]}"


_SCORE = re.compile(r": (\d+)/10 — ")
_DAMAGES: tuple[Callable[[list[str], Random], list[str]], ...] = (
    _in_some(_reworded),
    _in_some(_wrapped),
    _in_some(lambda line: _SCORE.sub(r":\n\1/10 — ", line)),
    _in_some(lambda line: _SCORE.sub(r": \1 / 10 — ", line)),
    _in_some(lambda line: _SCORE.sub(r": 7.5/10 — ", line)),
    _in_some(lambda line: _SCORE.sub(r": 11/10 — ", line)),
    _in_some(lambda line: _SCORE.sub(r": n/a — ", line)),
    _in_some(lambda line: _SCORE.sub(r" \1/10 ", line)),
    _in_all(lambda line: line.replace(" — ", " - ")),
    _in_all(lambda line: line.replace(" — ", " – ")),
    _in_all(lambda line: line.replace(": ", "：")),
    _in_all(lambda line: re.sub(r"^(\[A\d+\]) ([^:]+): (\d+/10)", r"\1 **\2**: **\3**", line)),
    _in_all(lambda line: f"- {line}"),
    _in_all(lambda line: f"{line}\r"),
    lambda lines, _: [*lines[:15], *(line.replace("_", " ").title() for line in lines[15:])],
    lambda lines, _: [*lines[:15], f"**{lines[15]}/100**", *lines[16:]],
    _shuffled,
    _without_one,
    _with_one_twice,
    lambda lines, _: ["Here is my assessment of the record:", "", *lines],
    lambda lines, _: [*lines, "", "Let me know if more detail is needed."],
    lambda lines, _: ["```", *lines, "```"],
    lambda lines, _: lines[:15],
    lambda lines, random: lines[: random.randint(5, 14)],
)


if __name__ == "__main__":
    sys.exit(main())
