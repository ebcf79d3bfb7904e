"""The data stages of recipes/pilot.yaml on a small stand-in: its own settings from files to blends.

Changed is what needs GPUs, servers or a download: the rule judge answers for teacher and scorer,
TF-IDF embeds, and the tokenizer is a small one. Sizes follow the stand-in's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # OmegaConf brings it
from smoke_runs import assert_done, before, mira

from mira_megatron.tokenization.tokenizer import train_byte_level_bpe

PILOT = Path(__file__).parents[2] / "recipes" / "pilot.yaml"
NUM_RECORDS = 40
GPU_SECTIONS = ("distill", "midtrain", "instruct_sft", "ablation", "eval", "plan")
MODULES = sorted(Path(json.__file__).parents[1].glob("[a-d]*.py"))
TEXT = (
    "the parser returns a tree because a caller reads every node before it writes the file and "
    "checks its length again when an error is raised by the reader of the second list"
)


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(TEXT.split(), k=draw.randint(6, 14))).capitalize() + "."


def paragraph(draw: random.Random) -> str:
    return " ".join(sentence(draw) for _ in range(draw.randint(3, 9)))


def pull_request(draw: random.Random) -> dict[str, Any]:
    """Returns prose around a piece of Python that is installed with it."""
    lines = draw.choice(MODULES).read_text(encoding="utf-8").splitlines()
    start = draw.randrange(len(lines))
    code = "\n".join(lines[start : start + draw.randint(3, 60)])
    return {"text": f"# {sentence(draw)}\n\n{paragraph(draw)}\n\n```\n{code}\n```\n"}


def answer(draw: random.Random) -> dict[str, Any]:
    return {"question": f"Why {sentence(draw)}", "answer": paragraph(draw)}


def trace(draw: random.Random) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": paragraph(draw)}]
    for number in range(draw.randint(1, 5)):
        command = json.dumps({"command": f"ls {draw.randint(1, 9)}"})
        broken = command[:-1] if draw.random() < 0.3 else command
        call = {"name": draw.choice(["run", "read", "edit"]), "arguments": broken}
        calls = [{"id": f"{number}", "type": "function", "function": call}]
        said = sentence(draw) if draw.random() < 0.6 else ""
        failed = f"Error: {sentence(draw)}" if draw.random() < 0.4 else paragraph(draw)
        messages += [
            {"role": "assistant", "content": said, "tool_calls": calls},
            {"role": "tool", "tool_call_id": f"{number}", "content": failed},
        ]
    if draw.random() < 0.8:
        messages.append({"role": "assistant", "content": paragraph(draw)})
    return {"messages": messages}


MADE = {"pull_requests": pull_request, "answers": answer, "traces": trace}


def small_pilot(folder: Path) -> dict[str, Any]:
    """Returns the pilot's settings over files in `folder`, which are written."""
    pilot: dict[str, Any] = yaml.safe_load(PILOT.read_text(encoding="utf-8"))
    assert sorted(pilot["sources"]) == sorted(MADE)
    texts = []
    for number, (name, source) in enumerate(pilot["sources"].items()):
        draw = random.Random(number)
        lines = [json.dumps(MADE[name](draw)) for _ in range(NUM_RECORDS)]
        texts += lines
        (path,) = source["paths"]
        source["paths"] = [str(folder / Path(path).name)]
        with pa.CompressedOutputStream(source["paths"][0], "zstd") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
    tokenizer = folder / "tokenizer.json"
    train_byte_level_bpe(texts, 600).save(str(tokenizer))
    small = {name: value for name, value in pilot.items() if name not in GPU_SECTIONS}
    small["run_folder"] = str(folder / "run")
    small["embedder"] = {"engine": "tfidf_svd", "dimensions": 32, "max_chars": 2000}
    small["teacher"] = small["score"] = {"engine": "rule_judge"}
    small["tokenize"] = {**pilot["tokenize"], "tokenizer": str(tokenizer)}
    small["blend"] = {**pilot["blend"], "sequence_length": 64}
    small["select"] = {"budget_fraction": 0.5}
    return small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every stage from ingest to blend."""
    folder = tmp_path_factory.mktemp("pilot")
    recipe = folder / "pilot.yaml"
    recipe.write_text(yaml.safe_dump(small_pilot(folder), sort_keys=False))
    assert_done(mira("run", recipe))
    return folder / "run"


def certificate(run: Path, arm: str) -> Mapping[str, Any]:
    content: dict[str, Any] = json.loads((run / "keep" / arm / "selection.json").read_bytes())
    return content


def kept(run: Path, arm: str) -> Iterator[np.ndarray[Any, Any]]:
    for source in sorted(MADE):
        (path,) = (run / "keep" / arm).glob(f"{source}*.keep.npy")
        yield np.load(path)


def test_every_source_is_a_group_with_fifteen_anchors_of_its_own(run: Path) -> None:
    found = sorted(run.glob("anchors/pilot/*/anchors.jsonl"))
    assert len(found) == 3
    assert all(len(path.read_text().splitlines()) == 15 for path in found)


def test_every_record_has_the_score_that_its_arm_ranks_by(run: Path) -> None:
    for table, source in ((t, s) for t in ("pilot", "random") for s in MADE):
        parts = (run / "record_scores" / table / source).glob("part-*.parquet")
        rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
        assert len(rows) == NUM_RECORDS
        assert all(row["score"] is not None for row in rows), (table, source)


def test_both_arms_keep_half_of_the_tokens_and_not_the_same(run: Path) -> None:
    totals = [certificate(run, arm)["tokens_kept"] for arm in ("random", "mira_group")]
    budgets = [certificate(run, arm)["budget_tokens"] for arm in ("random", "mira_group")]
    assert budgets[0] == budgets[1]
    for total, budget in zip(totals, budgets, strict=True):
        assert 0.9 * budget < total <= budget
    pairs = zip(kept(run, "random"), kept(run, "mira_group"), strict=True)
    assert all((one != other).any() for one, other in pairs)


def test_blends_of_both_arms_hold_back_the_same_documents(run: Path) -> None:
    blends = [
        json.loads((run / "blends" / arm / "blend.json").read_bytes())
        for arm in ("random", "mira_group")
    ]
    assert blends[0]["num_train_samples"] > 0
    names = [[Path(each).name for each in blend["valid"]] for blend in blends]
    assert names[0] == names[1] != []


def test_stages_of_the_stand_in_are_those_before_the_trainings(run: Path) -> None:
    done = {json.loads(path.read_bytes())["stage"] for path in run.rglob("manifest.json")}
    expected = {*before("midtrain"), "baseline", "report"} - {"sft-data", "distill"}
    assert done == expected
