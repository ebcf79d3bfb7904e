"""The table: nine benchmarks in four categories, and what is the mean of what.

Every average is unweighted. `macro` is the mean of the four categories, which is how the published
rows come about; `micro9` is the mean of the nine benchmarks. MultiPL-E is one benchmark, the mean
of its eight languages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mira_megatron.eval.languages import LANGUAGES

MACRO, MICRO = "macro", "micro9"

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "code_generation": (
        "mbpp",
        "mbpp_plus",
        "bigcodebench_full",
        "bigcodebench_hard",
        "livecodebench",
    ),
    "multipl_e": ("multipl_e",),
    "sql": ("spider", "bird"),
    "swe": ("swe_multilingual",),
}
BENCHMARKS = tuple(name for members in CATEGORIES.values() for name in members)

AVERAGES: Mapping[str, tuple[str, ...]] = {
    "multipl_e": tuple(f"multipl_e_{language}" for language in sorted(LANGUAGES)),
    "code_generation": CATEGORIES["code_generation"],
    "sql": CATEGORIES["sql"],
    "swe": CATEGORIES["swe"],
    MACRO: tuple(CATEGORIES),
    MICRO: BENCHMARKS,
}
# What a reader looks at first: the categories and what they come to.
SUMMARY = (*CATEGORIES, MACRO, MICRO)

TITLES: Mapping[str, str] = {
    "mbpp": "MBPP",
    "mbpp_plus": "MBPP+",
    "bigcodebench_full": "BigCodeBench Full",
    "bigcodebench_hard": "BigCodeBench Hard",
    "livecodebench": "LiveCodeBench",
    "multipl_e": "MultiPL-E",
    "spider": "Spider",
    "bird": "BIRD",
    "swe_multilingual": "SWE-bench Multilingual",
    "code_generation": "Code generation",
    "sql": "SQL",
    "swe": "SWE",
    MACRO: "Macro average",
    MICRO: "Mean of nine",
}


def title_of(name: str) -> str:
    """Returns what a table's heading says; a name that has no title is its own."""
    language = name.removeprefix("multipl_e_")
    return f"MultiPL-E {language}" if language in LANGUAGES else TITLES.get(name, name)


def leaves(name: str) -> Iterator[str]:
    """Yields the graded benchmarks that a number is made of: itself, or all that it averages."""
    for member in AVERAGES.get(name, (name,)):
        yield from (member,) if member == name else leaves(member)
