"""Judgments and anchors small enough to be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mira_megatron.records import JUDGMENT_SCHEMA, NUM_SLOTS, Anchor, Medoid, Reference
from mira_megatron.rubric.anchor_clusters import FoundAnchors, find_anchors
from mira_megatron.rubric.anchor_config import AnchorConfig
from mira_megatron.rubric.anchor_files import with_version

CONFIG = AnchorConfig(
    num_starts=5,
    num_reference_anchors=12,
    near_duplicate_cosine=0.9,
    merge_near_duplicates=False,
    num_resamples=0,
    max_resample_strings=1000,
)
# Topic, words, score: the judgment "name <topic>: about <topic> words <words>".
Said = tuple[int, int, float]


def judgment(topic: int, words: int, score: float, **changes: Any) -> dict[str, Any]:
    row = {
        "record_id": "r",
        "source": "s",
        "part": None,
        "dimension": f"name {topic:02}",
        "score": score,
        "reason": f"about {topic:02} words {words}",
        "model": "m",
        "prompt_key": "k",
    }
    return {**row, **changes}


def judgments(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=JUDGMENT_SCHEMA)


def every_topic(num_topics: int = NUM_SLOTS, **changes: Any) -> list[dict[str, Any]]:
    """Topic 0 is said 30 times, topic 1 28 times, and so on; always the same words per topic."""
    return [
        judgment(topic, 0, 5.0, record_id=f"r{topic:02}-{time:02}", **changes)
        for topic in range(num_topics)
        for time in range(2 * (NUM_SLOTS - topic))
    ]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """The topic decides the direction, the words a little of it: cosine 0.99 inside a topic.

    Words 10 to 19 change it less than words 0 to 9.
    """
    vectors = np.zeros((len(texts), 60), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        topic, words = (int(text.split()[place]) for place in (-3, -1))
        vector[topic] = 1
        vector[40 + words] = 0.1 if words < 10 else 0.01
    return vectors


def found(rows: Sequence[dict[str, Any]], **changes: Any) -> FoundAnchors:
    settings = {"family": "text", "config": CONFIG, "threads": 1, **changes}
    family, config, threads = (settings[name] for name in ("family", "config", "threads"))
    return find_anchors(
        judgments(rows), family, embed, config, seed=0, threads=threads, where="source group g"
    )


def anchors(names: Sequence[str] | None = None) -> tuple[Anchor, ...]:
    """Anchors with a medoid, aliases and references, under their own version."""
    blank = Anchor(
        anchor_id="",
        name="",
        description=None,
        part=None,
        cluster_size=7,
        aliases=(("Other name", 2),),
        medoid=Medoid(record_id="r1", source="s", score=7.5, reason="good"),
        references=(
            Reference(level="low", record_id="r2", source="s", score=1.0, reason="poor"),
            Reference(level="high", record_id=None, source=None, score=9.0, reason="fine"),
        ),
        rubric_version="",
    )
    given = names or [f"Name {slot}" for slot in range(1, NUM_SLOTS + 1)]
    return with_version("mine", [replace(blank, name=name) for name in given])
