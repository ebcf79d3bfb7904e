"""DataMan's prompt, the text it is shown, and its answer (Peng et al. 2025, github pengr/DataMan).

The wording of the prompt and the order of the answer are the protocol of the published models,
`RuPeng/DataMan-1.5B-EN` and its kin, which answer with 15 lines: the letter of a domain and
fourteen whole numbers from 1 to 5.

The repository's own reader puts names to whatever lines there are, so a missing line shifts all
scores behind it. Here an answer is read whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

PROMPT_KEY = "dataman/1"
SYSTEM = "You are a helpful assistant."
CRITERIA = (
    "Accuracy",
    "Coherence",
    "Language Consistency",
    "Semantic Density",
    "Knowledge Novelty",
    "Topic Focus",
    "Creativity",
    "Professionalism",
    "Style Consistency",
    "Grammatical Diversity",
    "Structural Standardization",
    "Originality",
    "Sensitivity",
    "Overall Score",
)
DOMAINS = {
    "A": "Medicine",
    "B": "Finance",
    "C": "Law",
    "D": "Education",
    "E": "Technology",
    "F": "Entertainment",
    "G": "Mathematics",
    "H": "Coding",
    "I": "Government",
    "J": "Culture",
    "K": "Transportation",
    "L": "Retail E-commerce",
    "M": "Telecommunication",
    "N": "Agriculture",
    "O": "Other",
}
MAX_TOKENS = 29  # fifteen signs and the line ends between them

# Published: of a longer text the first and last 10,000 characters, then 947 tokens of each end.
_MOST_CHARS, _END_CHARS = 20_000, 10_000
MOST_TOKENS, END_TOKENS = 1_894, 947
_LEADING_DOTS = re.compile(r'^\s*["“”\']?(?:\.\.\.|…)["“”\']?\s*')
_IMAGE_LINE = re.compile(r"^!\[\]\([^)\n]*\)[ \t]*$\n?", re.MULTILINE)
_LETTER = re.compile(r"[A-O]")
_SCORE = re.compile(r"[1-5]")

# Cuts a text to the first and last so many tokens, joined by dots; other texts stay as they are.
CutTokens = Callable[[str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatamanReply:
    """What an answer says; scores in the order of CRITERIA, None where it could not be read."""

    domain: str | None
    scores: tuple[int, ...] | None
    reason: str | None = None

    @property
    def status(self) -> str:
        """Returns ok, or unparsed where nothing of the answer counts."""
        return "unparsed" if self.scores is None else "ok"


def dataman_messages(text: str, cut_tokens: CutTokens | None) -> tuple[dict[str, str], ...]:
    """Returns the chat messages that ask for one text's scores."""
    lines = "\n".join(f"[{number}]{name}:_/5" for number, name in enumerate(CRITERIA, start=1))
    asked = (
        "Please score the text on fourteen evaluation criteria and specify its domain:\n"
        f"Text: {prepared(text, cut_tokens)}\nDomain:_\n{lines}"
    )
    return ({"role": "system", "content": SYSTEM}, {"role": "user", "content": asked})


def prepared(text: str, cut_tokens: CutTokens | None) -> str:
    """Returns a text as DataMan is shown it: no leading dots, no image lines, and not too long."""
    text = _IMAGE_LINE.sub("", _LEADING_DOTS.sub("", text))
    if len(text) > _MOST_CHARS:
        text = text[:_END_CHARS] + text[-_END_CHARS:]
    return text if cut_tokens is None else cut_tokens(text)


def parse_dataman(answer: str) -> DatamanReply:
    """Returns what an answer says, all of it or nothing.

    Fifteen lines are needed, in their order: a letter A to O, then fourteen numbers from 1 to 5,
    each bare or behind its name (`[1]Accuracy:4/5`).
    """
    lines = [line.strip() for line in answer.strip().splitlines()]
    if len(lines) != 1 + len(CRITERIA):
        return _unread(f"{len(lines)} lines, expected {1 + len(CRITERIA)}")
    domain = _value(lines[0], "Domain", _LETTER)
    if domain is None:
        return _unread(f"line 1 is {lines[0][:20]!r}, expected a letter A to O")
    scores = []
    for number, (line, name) in enumerate(zip(lines[1:], CRITERIA, strict=True), start=1):
        value = _value(line, f"[{number}]{name}", _SCORE)
        if value is None:
            return _unread(f"line {number + 1} is {line[:20]!r}, expected {name} from 1 to 5")
        scores.append(int(value))
    return DatamanReply(domain=domain, scores=tuple(scores))


def format_dataman(domain: str, scores: tuple[int, ...]) -> str:
    """Returns an answer as the models write it."""
    return "\n".join([domain, *map(str, scores)])


def _value(line: str, name: str, pattern: re.Pattern[str]) -> str | None:
    value = line.removeprefix(f"{name}:").removesuffix("/5").strip()
    return value if pattern.fullmatch(value) else None


def _unread(reason: str) -> DatamanReply:
    return DatamanReply(domain=None, scores=None, reason=reason)
