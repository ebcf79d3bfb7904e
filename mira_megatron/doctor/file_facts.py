"""Facts of a training that lie in files: tokenizer, base weights, data and its caches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mira_megatron.distill.sft_files import LENGTHS
from mira_megatron.doctor.facts import CacheFacts, TrainingFacts
from mira_megatron.json_objects import read_json_object
from mira_megatron.manifest import read_manifest
from mira_megatron.training.bridge_group import DIGEST_CHARS, SFT_FILES, GroupFolders, data_folders


def with_base(facts: TrainingFacts, base_folder: Path) -> TrainingFacts:
    """Returns the facts with what a Hugging Face folder says of tokenizer and weights.

    Raises FileNotFoundError where the folder is no model, ValueError where a file is damaged.
    """
    config = _json(base_folder / "config.json")
    settings = _json(base_folder / "tokenizer_config.json")
    text = config.get("text_config", config)
    return replace(
        facts,
        hf_architecture=config.get("architectures", [facts.hf_architecture])[0],
        checkpoint_vocab_size=text.get("vocab_size"),
        num_tokenizer_ids=_num_ids(_json(base_folder / "tokenizer.json")),
        chat_template=settings.get("chat_template"),
        eos_token=facts.eos_token or _content(settings.get("eos_token")),
    )


def with_data(facts: TrainingFacts, folders: GroupFolders) -> TrainingFacts:
    """Returns the facts with a source group's caches, and how much it is trained on."""
    manifest = read_manifest(folders.sft)
    digest = None if manifest is None else manifest.output_digest[:DIGEST_CHARS]
    caches = [
        *(cache for folder in data_folders(folders) for cache in list_caches(folder)),
        *list_caches(folders.sft),
    ]
    named = tuple(replace(cache, source_digest=digest) for cache in caches)
    return replace(facts, caches=named, num_training_tokens=most_tokens(folders.sft))


def most_tokens(sft_folder: Path) -> int | None:
    """Returns how many tokens a group's training samples hold, at most; None without samples.

    As if each were as long as the longest of its source: every one of them is not looked at.
    """
    lengths = read_json_object(sft_folder / LENGTHS)
    if lengths is None:
        return None
    sources: list[dict[str, Any]] = list(lengths["sources"].values())
    return sum(
        int(each["num_training"]) * int(each["longest_sample_tokens"] or 0) for each in sources
    )


def list_caches(data_folder: Path) -> list[CacheFacts]:
    """Returns what Megatron-Bridge or NeMo made of a folder's jsonl files, beside them."""
    return [
        CacheFacts(
            path=str(path),
            mtime=path.stat().st_mtime,
            source=str(data_folder / name),
            source_mtime=(data_folder / name).stat().st_mtime,  # of what a link points to
            made_of=data_folder.name.removeprefix("data-")
            if data_folder.name.startswith("data-")
            else None,
        )
        for name in SFT_FILES
        if (data_folder / name).is_file()
        for path in _made_of(data_folder, name)
    ]


def _made_of(data_folder: Path, name: str) -> list[Path]:
    stem = name.removesuffix(".jsonl")
    return [
        *sorted(data_folder.glob(f"{name}.idx.*")),
        *sorted((data_folder / "packed").glob(f"*/{stem}_*.npy")),
    ]


def _num_ids(tokenizer: dict[str, Any]) -> int:
    """Returns the highest id + 1 of a tokenizer.json, added tokens included."""
    vocabulary = tokenizer["model"]["vocab"]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    added = [token["id"] for token in tokenizer.get("added_tokens", [])]
    return max([*ids, *added], default=-1) + 1


def _content(token: object) -> str | None:
    """Returns a special token's text: tokenizer_config.json has it as text or as an object."""
    if isinstance(token, dict):
        return str(token["content"])
    return None if token is None else str(token)


def _json(path: Path) -> dict[str, Any]:
    value = read_json_object(path)
    if value is None:
        raise FileNotFoundError(f"{path}: missing. Give the folder of the base model with --base.")
    return value
