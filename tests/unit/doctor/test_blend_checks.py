from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import preflight_recipes
import pytest
from adopted_datasets import (
    random_documents,
    write_adopting_recipe,
    write_pair,
    write_table,
    write_tokenizer,
)
from preflight_recipes import MIDTRAIN, about, subject

from mira_megatron import layout
from mira_megatron.config import load_recipe
from mira_megatron.doctor import blend_checks
from mira_megatron.doctor.blend_checks import check_data, token_ids
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.subject import subject_of
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources
from mira_megatron.tokenization.index_file import bin_path
from mira_megatron.tokenization.token_dataset import read_token_dataset

pytestmark = pytest.mark.megatron

ENTRY = {"prefixes": ["wiki"], "scores": {"team": {"paths": "s.parquet", "column": "quality"}}}


@pytest.fixture(scope="module")
def blended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose recipe has run up to its blend; what is trained has the same tokenizer."""
    folder = tmp_path_factory.mktemp("blended")
    eod_id = write_tokenizer(folder / "tokenizer.json")
    write_pair(folder / "wiki", random_documents(1, 400, eod_id))
    write_table(folder / "s.parquet", {"quality": np.arange(400.0)})
    preflight_recipes.write_base(folder / "base")
    shutil.copy(folder / "tokenizer.json", folder / "base" / "tokenizer.json")
    midtrain = {"trainer": "bridge", "config": MIDTRAIN, "base": "base"}
    path = write_adopting_recipe(folder, {"wiki": ENTRY}, midtrain=midtrain, select={})
    run_stages(load_recipe(path), ["tokenize", "adopt", "select", "blend"], Resources())
    return folder


@pytest.fixture
def run(blended: Path) -> Iterator[Path]:
    """The same folder, for a test that breaks it: a copy takes its place afterwards."""
    kept = blended.with_name("kept")
    shutil.copytree(blended, kept, symlinks=True, copy_function=shutil.copy2)
    yield blended
    shutil.rmtree(blended)
    kept.rename(blended)


def _findings(folder: Path, *, verify_all: bool = False, **changes: Any) -> list[Finding]:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return check_data(subject_of(load_recipe(path), None), verify_all=verify_all)


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_blend_that_is_sound_is_verified(run: Path) -> None:
    findings = _findings(run)
    assert about(findings, INFO, "arm half", "holds what was selected")
    assert not about(findings, ERROR)


def test_blend_too_small_for_a_batch_is_found(run: Path) -> None:
    _change(run / "run" / "blends" / "half" / layout.BLEND, num_train_samples=127)
    assert about(_findings(run), ERROR, "127 samples fill no batch of 128")


def test_blend_that_is_not_what_was_selected_is_found(run: Path) -> None:
    path = run / "run" / "blends" / "half" / layout.BLEND
    content = json.loads(path.read_text())
    entries = [{**entry, "num_tokens": entry["num_tokens"] + 1} for entry in content["entries"]]
    _change(path, entries=entries)
    assert about(_findings(run), ERROR, "arm half", "mira tokens verify")


def test_large_blend_is_verified_only_when_asked_for(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blend_checks, "VERIFIED_TOKENS", 10)
    findings = _findings(run)
    assert about(findings, WARNING, "not verified here", "--verify")
    assert not about(findings, INFO, "holds what was selected")
    assert about(_findings(run, verify_all=True), INFO, "holds what was selected")


def test_tokens_out_of_the_vocabulary_are_found(run: Path) -> None:
    (prefix,) = read_token_dataset(run / "run" / "tokens" / "wiki").prefixes
    path = bin_path(prefix.path_prefix)
    path.write_bytes(b"\xff\xff\xff\x7f" * (path.stat().st_size // 4))
    assert about(_findings(run), ERROR, "arm half", "a token id 2,147,483,647")


def test_dataset_that_the_model_has_no_rows_for_is_found(run: Path) -> None:
    _change(run / "run" / "tokens" / "wiki" / layout.DATASET, vocab_size=200_000)
    assert about(_findings(run), ERROR, "200,000 ids, the model 152,064 rows")


def test_dataset_that_ends_documents_otherwise_is_found(run: Path) -> None:
    _change(run / "run" / "tokens" / "wiki" / layout.DATASET, eod_id=7)
    assert about(_findings(run), ERROR, "its documents end with 7", "<|endoftext|>")


def test_dataset_whose_type_holds_no_such_ids_is_found(run: Path) -> None:
    eod_id = write_tokenizer(run / "tokenizer.json")
    write_pair(run / "wiki", random_documents(1, 400, eod_id), np.uint16)
    _change(run / "run" / "tokens" / "wiki" / layout.DATASET, vocab_size=70_000)
    assert about(_findings(run), ERROR, "its tokens are uint16, which holds no vocabulary")


def test_dataset_whose_pair_is_gone_is_found(run: Path) -> None:
    (run / "wiki.idx").unlink()
    assert about(_findings(run), ERROR, "wiki.idx")


def test_tokenizer_other_than_the_bases_is_found(tmp_path: Path) -> None:
    looked_at = subject(tmp_path, tokenize=_tokenize("tokenizer.json"), run_folder="run")
    assert not about(check_data(looked_at, verify_all=False), ERROR)
    preflight_recipes.write_tokenizer(tmp_path / "tokenizer.json", b=5)
    looked_at = subject(tmp_path, tokenize=_tokenize("tokenizer.json"))
    (line,) = about(check_data(looked_at, verify_all=False), ERROR)
    assert "1 tokens have other ids in" in line
    assert "'b' is 5 here and 1 there" in line


@pytest.mark.parametrize("part", ["merges", "normalizer", "pre_tokenizer"])
def test_tokenizer_that_cuts_text_in_another_way_is_found(tmp_path: Path, part: str) -> None:
    looked_at = subject(tmp_path, tokenize=_tokenize("tokenizer.json"))
    content = json.loads((tmp_path / "base" / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert not about(check_data(looked_at, verify_all=False), ERROR)
    (content["model"] if part == "merges" else content)[part] = [["a", "b"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert about(check_data(looked_at, verify_all=False), ERROR, f"its {part} is another than in")
    # Older files write a merge as text: the same.
    content["model"]["merges"] = ["a b"]
    if part == "merges":
        theirs = {**content, "model": {**content["model"], "merges": [["a", "b"]]}}
        (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(theirs))
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        assert not about(check_data(looked_at, verify_all=False), ERROR)


def test_end_of_document_that_the_tokenizer_lacks_is_found(tmp_path: Path) -> None:
    tokenize = {**_tokenize("base/tokenizer.json"), "eod_token": "<|eod|>"}
    findings = check_data(subject(tmp_path, tokenize=tokenize), verify_all=False)
    assert about(findings, ERROR, "it has no token '<|eod|>'")


def test_what_stages_will_tell_is_said_to_be_unknown(tmp_path: Path) -> None:
    findings = check_data(subject(tmp_path), verify_all=False)
    assert not about(findings, ERROR)
    assert about(findings, UNKNOWN, "of wiki are not known before tokenize")
    assert about(findings, UNKNOWN, "arm half", "not known before blend")


def test_token_ids_of_a_unigram_tokenizer_are_its_positions() -> None:
    unigram = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}
    assert token_ids(unigram) == {"a": 0, "b": 1}


def _tokenize(tokenizer: str) -> dict[str, Any]:
    settings = {"eod_token": "<|endoftext|>", "validation_fraction": 0.1}
    return {"tokenizer": tokenizer, **settings, "validation_max_tokens": 100}
