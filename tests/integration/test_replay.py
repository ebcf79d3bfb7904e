"""What training would see, replayed from Megatron's datasets: the selection, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from jsonl_corpora import text_source, write_jsonl, write_recipe
from megatron.core.datasets.indexed_dataset import IndexedDataset
from smoke_runs import ARM, assert_done, before, mira

from mira_megatron.provenance.coverage import dataset_coverage
from mira_megatron.tokenization.megatron_datasets import (
    build_datasets,
    prefix_datasets,
    read_blend,
)
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.megatron

NUM_SHARED = 30
QUESTION = "What does number {} weigh?"
ANSWER = "It weighs {} grams, and twice as much when it is wet."
# Endings of answers, so that a judge finds enough to say about them.
ENDINGS = (
    *("", " Why? Water weighs more.", "\n- wet\n- dry", "\n```python\nprint(2 * {})\n```"),
    *(" I do not know, sorry.", "\n\nFirst weigh it; then dry it. Therefore: 2 * {} = wet."),
    " It weighs, weighs, weighs and weighs.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One prefix of a split: how often which document of its source is read, and the tail."""

    source: str
    prefix: str
    documents: npt.NDArray[np.int64]  # numbers in tokens/<source>, one per reading
    num_samples: int
    tail_tokens: int


def text(number: int) -> str:
    """Returns a text of its own for every number."""
    words = [f"word{number * (place + 3) % 97} leads to {number + place}" for place in range(8)]
    return f"Note {number}: " + ", ".join(words) + "."


def answer(number: int) -> str:
    """Returns the answer to the question of this number."""
    return (ANSWER + ENDINGS[number % len(ENDINGS)]).format(number, number)


def chat(number: int) -> str:
    """Returns the text that the question of this number is rendered as."""
    turns = (("user", QUESTION.format(number)), ("assistant", answer(number)))
    return "".join(f"<|im_start|>{who}\n{said}<|im_end|>\n" for who, said in turns)


@pytest.fixture(scope="module")
def duplicates_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over three sources full of each other's texts, keeping all that may be kept."""
    folder = tmp_path_factory.mktemp("duplicates")
    shared = [{"text": text(number)} for number in range(NUM_SHARED)]
    only_left = [{"text": text(number)} for number in range(100, 140)]
    only_right = [{"text": text(number)} for number in range(200, 340)]
    chats = [{"text": chat(number)} for number in range(NUM_SHARED)]
    questions = [
        {"q": QUESTION.format(number), "a": answer(number)} for number in range(2 * NUM_SHARED)
    ]
    sources = {
        "left": text_source(write_jsonl(folder / "left.jsonl", shared + only_left + shared[:20])),
        "right": text_source(write_jsonl(folder / "right.jsonl", only_right + chats + shared)),
        "questions": {
            "format": "jsonl",
            "family": "qa",
            "paths": [str(write_jsonl(folder / "questions.jsonl", questions))],
            "fields": {"question": "q", "answer": "a"},
        },
    }
    recipe = write_recipe(
        folder / "run.yaml",
        sources,
        ["left", "right", "questions"],
        tokenize={"validation_fraction": 0.3, "validation_max_tokens": 1200},
        select={"budget_fraction": 1.0},
        blend={"sequence_length": 32},
    )
    for stage in before("midtrain"):
        assert_done(mira(stage, recipe))
    return folder / "run"


@pytest.fixture(params=["smoke", "duplicates"])
def run(request: pytest.FixtureRequest) -> Path:
    """The smoke run, and the one full of duplicates."""
    name = {"smoke": "finished_run", "duplicates": "duplicates_run"}[request.param]
    folder: Path = request.getfixturevalue(name)
    return folder


def replay(run: Path, cache_folder: Path) -> dict[str, list[Replayed]]:
    """Returns what one pass over each split of the blend reads."""
    blend = read_blend(run / f"blends/{ARM}")
    source_of = {entry["prefix"]: entry["source"] for entry in blend["entries"]}
    with megatron_process_group():
        datasets = build_datasets(blend, seed=7, cache_folder=cache_folder)
        return {
            split: [
                replayed(run, source_of[Path(prefix).name], prefix, dataset)
                for prefix, dataset in zip(blend[split], prefix_datasets(whole), strict=True)
            ]
            for split, whole in (("train", datasets.train), ("valid", datasets.valid))
        }


def replayed(run: Path, source: str, prefix: str, dataset: Any) -> Replayed:
    """Returns a prefix's documents by where their tokens lie in the source's own .bin."""
    # Held by name: Megatron unmaps the file under its arrays once the dataset is gone.
    (path,) = (run / "tokens" / source).glob("*.idx")
    whole = IndexedDataset(str(path.with_suffix("")))
    document_at = {int(at): number for number, at in enumerate(whole.index.sequence_pointers)}
    viewed = dataset.dataset.index.sequence_pointers
    coverage = dataset_coverage(dataset)
    readings = np.repeat(np.arange(len(viewed)), coverage.times_exposed_S)
    return Replayed(
        source=source,
        prefix=Path(prefix).name,
        documents=np.array([document_at[int(viewed[at])] for at in readings], dtype=np.int64),
        num_samples=coverage.num_samples,
        tail_tokens=coverage.tail_tokens,
    )


def texts(run: Path, source: str) -> list[str]:
    """Returns the texts of a source in document order."""
    parts = sorted((run / "records" / source).glob("part-*.parquet"))
    return [value for part in parts for value in pq.read_table(part)["text"].to_pylist()]


def held_out(run: Path, source: str) -> npt.NDArray[np.bool_]:
    (path,) = (run / "tokens" / source).glob("*.records.parquet")
    documents = pq.read_table(path)
    is_held_out: npt.NDArray[np.bool_] = documents["is_validation"].to_numpy()
    return is_held_out


def sources(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "tokens").iterdir())


def held_out_texts(run: Path) -> set[str]:
    return {
        content
        for source in sources(run)
        for content, is_held_out in zip(texts(run, source), held_out(run, source), strict=True)
        if is_held_out
    }


def blend_json(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / f"blends/{ARM}/blend.json").read_text())
    return content


def test_training_reads_exactly_the_kept_documents_each_once(run: Path, tmp_path: Path) -> None:
    train = {entry.source: entry for entry in replay(run, tmp_path)["train"]}
    left_out = {
        entry["source"] for entry in blend_json(run)["left_out"] if entry["split"] == "train"
    }
    assert train.keys() | left_out == set(sources(run))
    assert not train.keys() & left_out
    for source, entry in train.items():
        is_kept = np.load(run / f"keep/{ARM}/{source}.keep.npy")
        assert sorted(entry.documents) == np.flatnonzero(is_kept).tolist(), source


def test_training_never_reads_a_held_out_text_of_any_source(run: Path, tmp_path: Path) -> None:
    never = held_out_texts(run)
    assert never
    for entry in replay(run, tmp_path)["train"]:
        written = texts(run, entry.source)
        assert not held_out(run, entry.source)[entry.documents].any()
        assert not {written[number] for number in entry.documents} & never, entry.source


def test_validation_reads_exactly_the_held_out_documents(run: Path, tmp_path: Path) -> None:
    valid = {entry.source: entry for entry in replay(run, tmp_path)["valid"]}
    left_out = {
        entry["source"] for entry in blend_json(run)["left_out"] if entry["split"] == "valid"
    }
    assert valid
    assert valid.keys() | left_out == set(sources(run))
    for source, entry in valid.items():
        assert sorted(entry.documents) == np.flatnonzero(held_out(run, source)).tolist(), source


def test_tail_left_out_is_short_and_listed_by_name(run: Path, tmp_path: Path) -> None:
    blend = blend_json(run)
    listed = {
        entry["prefix"]: (entry["num_samples"], entry["tail_tokens"]) for entry in blend["entries"]
    }
    found = {
        entry.prefix: (entry.num_samples, entry.tail_tokens)
        for entries in replay(run, tmp_path).values()
        for entry in entries
    }
    assert found == listed
    assert max(tail for _, tail in found.values()) < blend["sequence_length"]


def test_tail_in_the_coverage_report_is_the_one_replayed(
    finished_run: Path, tmp_path: Path
) -> None:
    report = json.loads((finished_run / f"checkpoints/{ARM}/coverage.json").read_text())
    listed = {(entry["split"], entry["prefix"]): entry["tail_tokens"] for entry in report}
    assert listed == {
        (split, entry.prefix): entry.tail_tokens
        for split, entries in replay(finished_run, tmp_path).items()
        for entry in entries
    }


def test_corpus_of_duplicates_has_held_out_texts_in_other_sources(duplicates_run: Path) -> None:
    """The tests above find something only where duplicates of held-out texts exist."""
    never = held_out_texts(duplicates_run)
    repeats = Counter(
        source
        for source in sources(duplicates_run)
        for content, is_held_out in zip(
            texts(duplicates_run, source), held_out(duplicates_run, source), strict=True
        )
        if content in never and not is_held_out
    )
    certificate = json.loads((duplicates_run / f"keep/{ARM}/selection.json").read_text())
    claimed = {
        source: entry["num_duplicates_of_held_out"]
        for source, entry in certificate["sources"].items()
        if entry["num_duplicates_of_held_out"]
    }
    assert dict(repeats) == claimed
    assert repeats["left"] >= 3  # repeated within the source
    assert repeats["right"] >= 5  # held out elsewhere, but past the token cap here
    assert any(content.startswith("<|im_start|>") for content in never)
