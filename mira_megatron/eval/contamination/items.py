"""What of a benchmark could lie in a corpus: its items, and the surfaces of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

TEST, TRAIN = "test", "train"  # splits

# Two fifths of what an item says, in words that few items share: docs/contamination.md has the
# figures on corpora with planted copies. Whole queries and references score 1 or nothing.
DEFAULT_THRESHOLD = 0.4
# Lower scores are common idioms, and would be most of the rows.
MIN_SCORE = 0.2


class TextForm(StrEnum):
    """How a surface is written; decides which tokens are compared, and how many in a row."""

    CODE = "code"
    SQL = "sql"
    PROSE = "prose"  # words and numbers alone
    SHAPE = "shape"  # code without its comments and the names of its variables


class Kind(StrEnum):
    """What part of an item a surface is."""

    PROMPT = "prompt"
    SOLUTION = "solution"  # or gold patch
    SOLUTION_SHAPE = "solution_shape"
    TESTS = "tests"
    ORIGINAL_PROMPT = "original_prompt"  # of the task that this one was translated from
    ORIGINAL_SOLUTION = "original_solution"
    ORIGINAL_SHAPE = "original_shape"
    QUERY = "query"  # a whole gold query, literals kept
    MASKED_QUERY = "masked_query"  # the same, literals left open
    REFERENCE = "reference"  # pull request, issue or commit
    TEST_NAMES = "test_names"


# Whose shape is looked for, too: what a test compares is in its literals.
SHAPE_OF = {
    Kind.SOLUTION: Kind.SOLUTION_SHAPE,
    Kind.ORIGINAL_SOLUTION: Kind.ORIGINAL_SHAPE,
}

# Names of tests stand in every later checkout of a repository: told, but no reason to drop.
EVIDENCE_ONLY = frozenset({Kind.TEST_NAMES})


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """A text of an item, to be found by its n-grams."""

    kind: Kind
    form: TextForm
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One task of a benchmark."""

    benchmark: str  # the suite's key
    task_id: str
    split: str = TEST
    cluster: str  # items of one cluster share texts by making: translations, paraphrases
    surfaces: tuple[Surface, ...] = ()
    query: str | None = None  # gold SQL, compared as a whole, too
    references: tuple[str, ...] = ()  # any one of them names the item
    test_names: tuple[str, ...] = ()
    dialect: str = field(default="sqlite")  # of the query
