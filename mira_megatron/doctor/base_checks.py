"""Checks of the models that trainings start from, and of the instructions: are they whole."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from mira_megatron import layout
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.doctor.finding import ERROR, WARNING, Finding
from mira_megatron.doctor.subject import Subject
from mira_megatron.instruct.conversation_files import file_conversations
from mira_megatron.json_objects import read_json_object
from mira_megatron.training.cluster_training import BRIDGE, cluster_instruct_sft, trainer_of
from mira_megatron.training.hf_weight_files import CONFIG, INDEX, WEIGHTS

_STAGES = {"distill": "distill", "midtrain": "midtrain", "instruct_sft": "instruct-sft"}
_PACKED = (".gz", ".zst")
_CHARS_PER_TOKEN = 4  # of English and of code, roughly: only a warning rests on it


def check_bases(subject: Subject) -> Iterator[Finding]:
    """Finds files that a base model's folder lacks; path_checks finds a folder that is gone."""
    for section, stage in _STAGES.items():
        values = subject.recipe.values.get(section)
        written = values.get("base") if isinstance(values, dict) else None
        if not isinstance(written, str) or subject.is_done(stage):
            continue
        folder = subject.recipe.path_of(written)
        if folder.is_dir():
            for name in missing_files(folder):
                yield Finding(
                    level=ERROR,
                    what=f"{folder / name}: no such file, so that the base model is not whole",
                    where=subject.where(f"{section}.base"),
                    way_out="copy the model anew, with config.json, tokenizer.json and all weights",
                )


def missing_files(folder: Path) -> list[str]:
    """Returns which files of a Hugging Face model are missing or empty, weights among them."""
    names = [CONFIG, layout.TOKENIZER_FILE]
    index = read_json_object(folder / INDEX)
    if index is not None:
        names += sorted({str(name) for name in (index.get("weight_map") or {}).values()})
    else:
        names += sorted(path.name for path in folder.glob("*.safetensors")) or [WEIGHTS]
    paths = [(name, folder / name) for name in names]
    return [name for name, path in paths if not path.is_file() or path.stat().st_size == 0]


def check_instructions(subject: Subject) -> Iterator[Finding]:
    """Finds instructions of a cluster's tuning that cannot be read, or fill no step."""
    if trainer_of(subject.recipe, "instruct_sft") != BRIDGE or subject.is_done("instruct-sft"):
        return
    config = cluster_instruct_sft(subject.recipe)
    where = subject.where("instruct_sft.data")
    paths = [subject.recipe.path_of(name) for name in config.data]
    if not all(path.is_file() for path in paths):
        return  # path_checks says so
    for path in paths:
        try:
            first = next(file_conversations(SourceFile(path=path, name=path.name)), None)
        except (ValueError, OSError, gzip.BadGzipFile) as error:
            way_out = "correct the file"
            yield Finding(level=ERROR, what=str(error), where=where, way_out=way_out)
        else:
            if first is None:
                what = f"{path}: holds no line"
                yield Finding(level=ERROR, what=what, where=where, way_out="give instructions")
    if any(path.suffix in _PACKED for path in paths):
        return  # how much they hold is not known
    num_bytes = sum(path.stat().st_size for path in paths)
    wanted = config.recipe.sequence_length * config.recipe.layout.global_batch_size
    what = f"{num_bytes:,} bytes, and one step of {config.config} reads {wanted:,} tokens"
    way_out = "give more instructions, or a recipe with a smaller batch"
    if num_bytes < wanted:  # no token is shorter than a byte
        yield Finding(level=ERROR, what=what, where=where, way_out=way_out)
    elif num_bytes < wanted * _CHARS_PER_TOKEN:
        what = f"{what}: they may not fill one"
        yield Finding(level=WARNING, what=what, where=where, way_out=way_out)
