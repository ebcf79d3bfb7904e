"""The loss of trained arms on held-out documents, beside what transformers says of an export."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from instruct_runs import (
    PAIRS,
    SHAPE,
    TRAINING,
    make_data,
    recipe_of,
    write_checkpoint,
    write_lines,
)
from megatron.core.models.gpt.gpt_model import GPTModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import Manifest
from mira_megatron.pipeline import stage_units
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.tokenization.token_dataset import read_token_dataset
from mira_megatron.training import held_out
from mira_megatron.training.checkpoint import load_checkpoint
from mira_megatron.training.document_loss import document_nats
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.hf_export import export_hf
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.run_held_out import held_out_summary

pytestmark = pytest.mark.megatron

NAMES = ("first", "first.seed8", "second", "second.seed8")


def with_section(recipe: Recipe, *, base: Path | None = None) -> Recipe:
    """Returns the recipe with two seeds, its model as a section or a base."""
    content = orjson.loads(recipe.path.read_bytes())
    content["blend"] = {"sequence_length": SHAPE.max_sequence_length}
    content["midtrain"]["training"] = TRAINING
    content["ablation"] = {"seeds": [5, 8]}
    if base is not None:
        content["midtrain"] = {"base": str(base), "training": TRAINING}
        content["ablation"]["base_arm"] = "base"
    recipe.path.write_bytes(orjson.dumps(content))
    return load_recipe(recipe.path)


def write_long_texts(recipe: Recipe) -> None:
    """Makes the texts of `wiki` longer than the model's window."""
    rows = [{"text": f"{question} {answer} é\n" * 7} for question, answer in PAIRS]
    write_lines(recipe.path.parent / "wiki.jsonl", rows)


def export(recipe: Recipe, name: str) -> Path:
    """Writes a checkpoint as transformers loads it."""
    folder = recipe.run_folder / layout.checkpoints(name)
    vocab_size = read_token_dataset(recipe.run_folder / layout.tokens("quiz")).vocab_size
    hf = recipe.path.parent / f"hf-{name}"
    with megatron_process_group():
        model = build_model(SHAPE, vocab_size)
        load_checkpoint(model, folder / layout.WEIGHTS)
        export_hf(
            model,
            SHAPE,
            vocab_size=vocab_size,
            tokenizer_file=recipe.run_folder / layout.TOKENIZER / layout.TOKENIZER_FILE,
            chat_template="",
            eos_tokens=["<|endoftext|>"],
            dtype=torch.float32,
            folder=hf,
        )
    return hf


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, Manifest]]:
    """A run with two arms of two seeds whose held-out loss is taken."""
    settings = {"validation_max_tokens": 1000}
    recipe = recipe_of(tmp_path_factory.mktemp("held"), tokenize_settings=settings)
    write_long_texts(recipe)
    make_data(recipe)
    for name in NAMES:
        write_checkpoint(recipe, name)
    recipe = with_section(recipe)
    run = Run(folder=recipe.run_folder)
    units = held_out.units(recipe)
    return recipe, {unit.name: run_unit(unit, run, Resources()) for unit in units}


def documents_of(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    path = recipe.run_folder / layout.held_out(name) / held_out.DOCUMENTS
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def summary_of(recipe: Recipe, name: str) -> dict[str, Any]:
    path = recipe.run_folder / layout.held_out(name) / held_out.SUMMARY
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def texts_of(recipe: Recipe) -> dict[str, str]:
    """Returns every record's text by its id."""
    found: dict[str, str] = {}
    for path in sorted((recipe.run_folder / layout.records("")).glob("*/part-*.parquet")):
        table = pq.read_table(path, columns=["record_id", "text"])
        found.update(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    return found


def held_out_ids(recipe: Recipe) -> list[str]:
    """Returns the ids of what tokenize held out, in document order of the sources by name."""
    ids: list[str] = []
    for source in ("quiz", "wiki"):
        (path,) = (recipe.run_folder / layout.tokens(source)).glob("*.records.parquet")
        table = pq.read_table(path)
        ids += table.filter(table["is_validation"])["record_id"].to_pylist()
    return ids


def theirs(model: Any, ids: list[int]) -> float:
    """Returns transformers' own loss, summed over windows that overlap by half."""
    size = SHAPE.max_sequence_length
    total, done = 0.0, 1
    for start in range(0, len(ids), size // 2):
        window = ids[start : start + size]
        labels = torch.tensor([window])
        labels[0, : done - start] = -100
        num_targets = len(window) - (done - start)
        if num_targets <= 0:
            break
        total += float(model(torch.tensor([window]), labels=labels).loss) * num_targets
        done = start + len(window)
    assert done == len(ids)
    return total


def test_all_held_out_documents_are_read_and_no_others(
    measured: tuple[Recipe, dict[str, Manifest]],
) -> None:
    recipe, manifests = measured
    assert tuple(manifests) == NAMES
    rows = documents_of(recipe, "first")
    assert [row["record_id"] for row in rows] == held_out_ids(recipe)
    assert {row["source"] for row in rows} == {"quiz", "wiki"}
    texts = texts_of(recipe)
    assert [row["num_bytes"] for row in rows] == [
        len(texts[row["record_id"]].encode()) for row in rows
    ]
    assert manifests["first"].counts.num_out == len(rows)


def test_loss_is_that_of_transformers_on_the_export(
    measured: tuple[Recipe, dict[str, Manifest]],
) -> None:
    recipe, _ = measured
    model: Any = AutoModelForCausalLM.from_pretrained(export(recipe, "first.seed8"))
    model.eval()
    path = recipe.run_folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    tokenizer = Tokenizer.from_file(str(path))
    end = tokenizer.token_to_id("<|endoftext|>")
    assert end is not None
    texts = texts_of(recipe)
    rows = [row for row in documents_of(recipe, "first.seed8") if row["source"] == "wiki"]
    longest = 0
    for row in rows:
        ids = [*tokenizer.encode(texts[row["record_id"]], add_special_tokens=False).ids, end]
        assert len(ids) == row["num_tokens"]
        longest = max(longest, len(ids))
        with torch.no_grad():
            bits = theirs(model, ids) / math.log(2) / row["num_bytes"]
        assert row["nats"] / math.log(2) / row["num_bytes"] == pytest.approx(bits, abs=1e-3)
    assert longest > 1.5 * SHAPE.max_sequence_length


def test_summary_adds_up_the_documents(measured: tuple[Recipe, dict[str, Manifest]]) -> None:
    recipe, _ = measured
    rows = [row for row in documents_of(recipe, "second") if row["source"] == "quiz"]
    found = summary_of(recipe, "second")
    nats, num_bytes = sum(row["nats"] for row in rows), sum(row["num_bytes"] for row in rows)
    quiz = found["sources"]["quiz"]
    assert quiz["documents"] == len(rows)
    assert quiz["bytes"] == num_bytes
    assert quiz["bits_per_byte"] == pytest.approx(nats / math.log(2) / num_bytes)
    whole = [found["sources"][source]["nats"] for source in ("quiz", "wiki")]
    assert found["all"]["nats"] == pytest.approx(sum(whole))
    assert found["window_tokens"] == SHAPE.max_sequence_length


def test_models_differ_and_the_same_weights_give_the_same_bytes(
    measured: tuple[Recipe, dict[str, Manifest]], tmp_path: Path
) -> None:
    recipe, manifests = measured
    assert len({manifest.output_digest for manifest in manifests.values()}) == len(NAMES)
    base = export(recipe, "first")
    settings = {"tokenizer": str(base), "validation_max_tokens": 1000}
    again = recipe_of(tmp_path, run="again", tokenize_settings=settings)
    content = orjson.loads(again.path.read_bytes())
    content["seed"] = 99  # of the recipe: it is no part of what is measured
    for name in ("train_vocab_size", "train_on", "train_chars"):
        del content["tokenize"][name]
    again.path.write_bytes(orjson.dumps(content))
    again = load_recipe(again.path)
    write_long_texts(again)
    make_data(again)
    again = with_section(again, base=base)
    units = held_out.units(again)
    assert [unit.name for unit in units] == [*NAMES, "base"]
    made = run_unit(units[-1], Run(folder=again.run_folder), Resources())
    assert made.output_digest == manifests["first"].output_digest


def test_weights_that_changed_are_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, arms=["only"])
    make_data(recipe)
    write_checkpoint(recipe, "only")
    part = recipe.run_folder / layout.checkpoints("only") / layout.WEIGHTS / "__0_0.distcp"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    unit = held_out.units(with_section(recipe))[0]
    with pytest.raises(ValueError, match=r"__0_0\.distcp: this part's bytes changed"):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def test_tokens_that_changed_are_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, arms=["only"])
    make_data(recipe)
    write_checkpoint(recipe, "only")
    (part,) = (recipe.run_folder / layout.tokens("wiki")).glob("*.bin")
    content = bytearray(part.read_bytes())
    content[0] ^= 1
    part.write_bytes(content)
    unit = held_out.units(with_section(recipe))[0]
    with pytest.raises(ValueError, match=r"\.bin: this part's bytes changed"):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def test_recipe_without_the_section_has_no_such_units(tmp_path: Path) -> None:
    assert stage_units(recipe_of(tmp_path), "held-out") == []


@pytest.fixture(scope="module")
def model() -> Iterator[GPTModel]:
    """A small model with large random weights."""
    with megatron_process_group():
        torch.manual_seed(1)
        made = build_model(SHAPE, 300)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.6)
        yield made.eval()


def nats(model: GPTModel, documents: list[list[int]], window_tokens: int = 16) -> list[float]:
    return document_nats(
        model, documents, vocab_size=300, window_tokens=window_tokens, title="documents"
    )


def test_document_is_read_as_if_there_were_no_others(model: GPTModel) -> None:
    drawn = np.random.default_rng(0)
    documents = [drawn.integers(0, 300, length).tolist() for length in (1, 2, 15, 16, 17, 40, 90)]
    together = nats(model, documents)
    assert together == pytest.approx([nats(model, [each])[0] for each in documents], rel=1e-5)
    assert together[0] == 0
    assert nats(model, documents[::-1]) == pytest.approx(together[::-1], rel=1e-5)


def test_window_that_holds_a_document_gives_the_models_plain_loss(model: GPTModel) -> None:
    ids = np.random.default_rng(1).integers(0, 300, 50).tolist()
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = model(tokens, torch.arange(50)[None], None)[0, :-1, :300]
    expected = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum")
    assert nats(model, [ids], 64) == pytest.approx([float(expected)], rel=1e-5)
    assert nats(model, [ids], 16) != pytest.approx([float(expected)], rel=1e-4)


def test_token_beyond_the_vocabulary_is_refused(model: GPTModel) -> None:
    with pytest.raises(ValueError, match="token id 300, but the model has 300 tokens"):
        nats(model, [[1, 300]])


@pytest.mark.usefixtures("model")
def test_loss_that_is_no_number_is_refused() -> None:
    broken = build_model(SHAPE, 300).eval()
    with torch.no_grad():
        next(broken.parameters())[7] = torch.nan
    with pytest.raises(ValueError, match="is no number"):
        nats(broken, [[1, 7, 2]])


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(1, 100),
        st.integers(0, 1000),
        st.floats(0, 1e4),
    ),
    min_size=1,
)


@given(ROWS)
def test_bits_per_byte_is_nats_by_ln2_by_bytes(rows: list[tuple[str, int, int, float]]) -> None:
    columns = list(zip(*rows, strict=True))
    ids = pa.array([str(number) for number in range(len(rows))])
    table = pa.table(
        [pa.array(columns[0]), ids, *map(pa.array, columns[1:])], held_out.SCHEMA.names
    )
    found = held_out_summary(table)
    for source, whole in [*found["sources"].items(), (None, found["all"])]:
        own = [row for row in rows if source in (None, row[0])]
        num_bytes = sum(row[2] for row in own)
        assert (whole["documents"], whole["bytes"]) == (len(own), num_bytes)
        if num_bytes == 0:
            assert whole["bits_per_byte"] is None
            continue
        bits = sum(row[3] for row in own) / 0.6931471805599453
        assert whole["bits_per_byte"] == pytest.approx(bits / num_bytes)
