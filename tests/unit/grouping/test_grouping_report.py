from __future__ import annotations

import dataclasses
import json

import numpy as np

from mira_megatron.grouping.clustering import ClusterRules, Partition
from mira_megatron.grouping.family_groups import FamilyGroups, Group
from mira_megatron.grouping.grouping_report import groups_page, similarity

EMBEDDER = {"engine": "tfidf_svd", "model": None, "dimensions": 4}
COSINES = np.array([[1.0, 0.8, -1e-9], [0.8, 1.0, 0.12345678], [-1e-9, 0.12345678, 1.0]])
GROUPED = FamilyGroups(
    family="text",
    sources=("books", "my_wiki", "tests"),
    num_records=(1000, 12, 7),
    cosine_SS=COSINES,
    groups=(
        Group(name="text-books", sources=("books", "my_wiki"), method="similarity"),
        Group(name="text-tests", sources=("tests",), method="similarity"),
    ),
    clustered=("books", "my_wiki", "tests"),
    rules=ClusterRules(num_clusters=None, min_silhouette=0.15, min_cosine=0.65, seed=1),
    partition=Partition(
        labels=(0, 0, 1), chosen_by="silhouette", silhouettes={2: 0.51}, mean_cosine=0.307819
    ),
    stability=0.95,
    num_resamples=20,
)
PINNED = dataclasses.replace(
    GROUPED,
    groups=(Group(name="text-all", sources=GROUPED.sources, method="pinned"),),
    clustered=(),
    partition=None,
    stability=None,
)


def test_numbers_are_written_in_six_digits_and_null_where_there_are_none() -> None:
    written = similarity(GROUPED, EMBEDDER)
    assert json.loads(json.dumps(written, allow_nan=False)) == {
        "family": "text",
        "embedder": EMBEDDER,
        "sources": ["books", "my_wiki", "tests"],
        "num_records": {"books": 1000, "my_wiki": 12, "tests": 7},
        "cosines": [[1.0, 0.8, 0.0], [0.8, 1.0, 0.123457], [0.0, 0.123457, 1.0]],
        "groups": {
            "text-books": {
                "sources": ["books", "my_wiki"],
                "method": "similarity",
                "mean_cosine": 0.8,
                "lowest_cosine": 0.8,
            },
            "text-tests": {
                "sources": ["tests"],
                "method": "similarity",
                "mean_cosine": None,
                "lowest_cosine": None,
            },
        },
        "clustering": {
            "sources": ["books", "my_wiki", "tests"],
            "num_groups": 2,
            "chosen_by": "silhouette",
            "silhouettes": {"2": 0.51},
            "mean_cosine": 0.307819,
            "min_silhouette": 0.15,
            "min_cosine": 0.65,
        },
        "stability": {"adjusted_rand_index": 0.95, "num_resamples": 20},
    }
    assert "-0.0" not in json.dumps(written)


def test_nothing_clustered_is_null() -> None:
    written = similarity(PINNED, EMBEDDER)
    assert written["clustering"] is None
    assert written["stability"]["adjusted_rand_index"] is None
    assert written["groups"]["text-all"]["lowest_cosine"] == 0.0


def test_page_shows_members_reason_and_matrix() -> None:
    page = groups_page("mira", GROUPED, EMBEDDER)
    assert "| text-books | books (1,000), my\\_wiki (12) | 0.800 | 0.800 | similarity |" in page
    assert "3 sources in 2 groups: best silhouette 0.510." in page
    assert "| silhouette | 0.510 |" in page
    assert "adjusted Rand index 0.950, the mean over 20 resamples" in page
    assert "| 2 | my\\_wiki | **0.800** | **1.000** | 0.123 |" in page


def test_page_says_why_two_sources_were_parted() -> None:
    two = Partition(labels=(0, 1), chosen_by="unlike", silhouettes={}, mean_cosine=0.3)
    page = groups_page(
        "mira",
        dataclasses.replace(GROUPED, partition=two, clustered=("books", "tests")),
        EMBEDDER,
    )
    assert "2 sources, a group each: two sources cannot be clustered; their mean cosine" in page
    assert "is 0.300, and 0.65 is asked." in page


def test_page_names_pinned_groups_and_the_model() -> None:
    page = groups_page("mira", PINNED, {**EMBEDDER, "engine": "endpoint", "model": "a|b*c"})
    assert "Pinned by descriptors: text-all" in page
    assert "endpoint (a\\|b\\*c) in 4 dimensions" in page
