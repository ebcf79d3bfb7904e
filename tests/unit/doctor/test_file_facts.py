from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mira_megatron.doctor.cache_checks import check_stale_caches
from mira_megatron.doctor.checks import check_facts
from mira_megatron.doctor.config_facts import config_facts, recipe_facts
from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.file_facts import list_caches, with_base, with_data
from mira_megatron.manifest import Counts, Manifest, write_manifest
from mira_megatron.training.bridge_group import GroupFolders, link_data

RECIPE = "qwen3_30b_a3b_scorer_sft_8gpu_h200_bf16_config"


def _write_cache(data_folder: Path, *, mtime: int) -> Path:
    cache = data_folder / "packed" / "base_pad_seq_to_mult16" / "training_65536.npy"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"")
    os.utime(cache, (mtime, mtime))
    return cache


@pytest.mark.parametrize(("mtime", "is_stale"), [(999, True), (1001, False)])
def test_cache_older_than_its_text_is_named_to_be_deleted(
    tmp_path: Path, mtime: int, is_stale: bool
) -> None:
    (tmp_path / "training.jsonl").write_text("{}\n")
    os.utime(tmp_path / "training.jsonl", (1000, 1000))
    cache = _write_cache(tmp_path, mtime=mtime)
    findings = check_stale_caches(TrainingFacts(caches=tuple(list_caches(tmp_path))))
    assert [finding.way_out for finding in findings] == [f"delete {cache}"] * is_stale


def test_line_index_counts_as_a_cache(tmp_path: Path) -> None:
    for name in ("training.jsonl", "training.jsonl.idx.npy", "training.jsonl.idx.info"):
        (tmp_path / name).write_text("{}\n")
    assert [Path(cache.path).name for cache in list_caches(tmp_path)] == [
        "training.jsonl.idx.info",
        "training.jsonl.idx.npy",
    ]


def _finished_sft(run_folder: Path, digest: str) -> GroupFolders:
    folders = GroupFolders(run_folder=run_folder, rubric="code", group="text-group1")
    folders.sft.mkdir(parents=True, exist_ok=True)
    for name in ("training.jsonl", "validation.jsonl"):
        (folders.sft / name).write_text("{}\n")
        os.utime(folders.sft / name, (1000, 1000))
    write_manifest(
        folders.sft,
        Manifest(
            stage="sft-data",
            unit="text-group1",
            stage_version=1,
            config={},
            inputs={},
            fingerprint="f",
            output_digest=digest,
            parts=(),
            counts=Counts(num_in=1, num_out=1),
            seconds=0.0,
            code={},
            packages={},
        ),
    )
    return folders


def test_linked_data_of_other_labels_lie_in_another_folder(tmp_path: Path) -> None:
    first = link_data(_finished_sft(tmp_path, "a" * 32))
    second = link_data(_finished_sft(tmp_path, "b" * 32))
    assert (first.name, second.name) == (f"data-{'a' * 12}", f"data-{'b' * 12}")
    assert (second / "training.jsonl").read_text() == "{}\n"
    assert link_data(_finished_sft(tmp_path, "b" * 32)) == second


def test_cache_of_other_labels_is_found_by_digest(tmp_path: Path) -> None:
    folders = _finished_sft(tmp_path, "a" * 32)
    cache = _write_cache(link_data(folders), mtime=2000)
    assert not check_stale_caches(with_data(TrainingFacts(), folders))
    _finished_sft(tmp_path, "b" * 32)
    (finding,) = check_stale_caches(with_data(TrainingFacts(), folders))
    assert finding.where == str(cache)


def test_samples_of_a_group_hold_at_most_the_longest_of_each_source(tmp_path: Path) -> None:
    folders = _finished_sft(tmp_path, "a" * 32)
    assert with_data(TrainingFacts(), folders).num_training_tokens is None
    sources = {
        "a": {"num_training": 3, "longest_sample_tokens": 100},
        "b": {"num_training": 2, "longest_sample_tokens": 10},
        "empty": {"num_training": 0, "longest_sample_tokens": None},
    }
    (folders.sft / "lengths.json").write_text(json.dumps({"sources": sources}))
    assert with_data(TrainingFacts(), folders).num_training_tokens == 320


def test_linking_a_group_without_data_says_how_to_make_them(tmp_path: Path) -> None:
    folders = GroupFolders(run_folder=tmp_path, rubric="code", group="text-group1")
    with pytest.raises(FileNotFoundError, match="Make it with `mira sft-data`"):
        link_data(folders)


def _write_base(folder: Path, vocab_size: int) -> Path:
    folder.mkdir()
    tokenizer = {
        "model": {"vocab": {"a": 0, "b": 1}},
        "added_tokens": [{"id": 7, "content": "<|im_end|>"}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"eos_token": {"content": "<|endoftext|>"}, "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {"architectures": ["Qwen3MoeForCausalLM"], "vocab_size": vocab_size}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_base_model_tells_ids_rows_and_end_of_text(tmp_path: Path) -> None:
    facts = with_base(TrainingFacts(), _write_base(tmp_path / "base", 151_936))
    assert (facts.num_tokenizer_ids, facts.checkpoint_vocab_size) == (8, 151_936)
    assert facts.eos_token == "<|endoftext|>"


def test_recipe_on_its_own_base_model_has_nothing_to_mend(tmp_path: Path) -> None:
    base = _write_base(tmp_path / "base", 151_936)
    assert check_facts(with_base(recipe_facts(RECIPE, str(base)), base)) == []


def test_recipe_on_another_base_model_is_found(tmp_path: Path) -> None:
    base = _write_base(tmp_path / "base", 248_320)
    (finding,) = check_facts(with_base(recipe_facts(RECIPE, str(base)), base))
    assert "the weights it starts from 248,320" in finding.what


def test_missing_base_model_names_the_file_and_the_option(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json: missing.*--base"):
        with_base(TrainingFacts(), tmp_path)


def _bridge_recipe_as_it_comes() -> SimpleNamespace:
    """What a stock SFT recipe holds before anyone has set anything: Bridge's defaults."""
    return SimpleNamespace(
        model=SimpleNamespace(
            context_parallel_size=1,
            tensor_model_parallel_size=4,
            pipeline_model_parallel_size=2,
            expert_model_parallel_size=4,
            seq_length=2048,
            vocab_size=151_936,
        ),
        train=SimpleNamespace(global_batch_size=32, micro_batch_size=1),
        dataset=SimpleNamespace(
            packed_sequence_specs=SimpleNamespace(packed_sequence_size=2048), dataset_kwargs={}
        ),
        tokenizer=SimpleNamespace(tokenizer_type="NullTokenizer", tokenizer_model=None),
    )


def test_stock_recipe_is_found_to_join_and_end_samples_otherwise() -> None:
    facts = config_facts(_bridge_recipe_as_it_comes(), num_gpus=8)
    assert [finding.where.split("=")[0] for finding in check_facts(facts)] == [
        "tokenizer.tokenizer_type",
        "dataset.dataset_kwargs.prompt_template",
        "dataset.dataset_kwargs.add_eos",
    ]
