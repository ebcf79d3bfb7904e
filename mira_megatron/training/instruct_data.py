"""The samples of an instruction tuning on a cluster: where they lie, and how many steps they make.

Free of Bridge and torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mira_megatron.corpus.raw_digests import raw_files_digest
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.training.arm_folders import ArmFolders, identity_of
from mira_megatron.training.base_weights import weights_digest
from mira_megatron.training.bridge_settings import InstructSftChoices
from mira_megatron.training.dense_layouts import DenseRecipe
from mira_megatron.training.held_out_texts import held_out_digest, held_out_texts
from mira_megatron.training.instruct_rows import (
    InstructRows,
    read_instruct_rows,
    write_instruct_rows,
)

# Of the instructions, for the validation loss. Our choice.
VALIDATION_FRACTION = 0.01


def instruct_folders(
    run_folder: Path,
    arm: str,
    recipe: DenseRecipe,
    base_folder: Path,
    choices: InstructSftChoices,
    data: Sequence[Path],
    num_epochs: int,
) -> ArmFolders:
    """Returns the folders of an arm's instruction tuning on these files as they are.

    Raises FileNotFoundError for a file or a base that is not there.
    """
    for path in data:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file. Give jsonl files of instructions.")
    cache = run_folder / ".raw_digests" / "instructions.json"
    # Not by their folders: a copy elsewhere is the same data.
    files = [SourceFile(path=path, name=f"{index}-{path.name}") for index, path in enumerate(data)]
    return ArmFolders(
        run_folder=run_folder,
        arm=arm,
        identity=identity_of(
            recipe,
            raw_files_digest(files, cache),
            weights_digest(base_folder),
            choices,
            {
                "num_epochs": num_epochs,
                "validation_fraction": VALIDATION_FRACTION,
                "held_out": held_out_digest(run_folder),
            },
        ),
    )


def make_instruct_data(folders: ArmFolders, data: Sequence[Path], tokenizer_file: Path) -> None:
    """Writes the samples; finished ones are left as they are.

    Raises ValueError where they do not fill one global batch.
    """
    rows = read_instruct_rows(folders.data)
    if rows is None:
        rows = write_instruct_rows(
            folders.data,
            data,
            tokenizer_file,
            sequence_length=folders.identity.sequence_length,
            validation_fraction=VALIDATION_FRACTION,
            seed=folders.identity.choices["seed"],
            held_out=held_out_texts(folders.run_folder),
        )
    _require_one_batch(rows, folders)


def instruct_steps(
    choices: InstructSftChoices, folders: ArmFolders, num_epochs: int
) -> InstructSftChoices:
    """Returns the choices with the whole steps that the samples make in `num_epochs` passes.

    What packing leaves empty is not counted, so there are never more steps than packed samples: the
    last pass ends that much early. Raises FileNotFoundError where the samples have not been made,
    ValueError where they do not fill one global batch.
    """
    rows = read_instruct_rows(folders.data)
    if rows is None:
        raise FileNotFoundError(
            f"{folders.data}: the samples are not there. Make them with the step `data`."
        )
    _require_one_batch(rows, folders)
    return replace(choices, num_steps=num_epochs * _places(rows) // _places_per_step(folders))


def _places(rows: InstructRows) -> int:
    """Returns how many places of packed samples the rows take: a row's last token is only read."""
    return rows.training_tokens - rows.num_training


def _places_per_step(folders: ArmFolders) -> int:
    return folders.identity.sequence_length * folders.identity.global_batch_size


def _require_one_batch(rows: InstructRows, folders: ArmFolders) -> None:
    length, batch = folders.identity.sequence_length, folders.identity.global_batch_size
    if _places(rows) < length * batch:
        raise ValueError(
            f"{folders.data}: {rows.num_training:,} samples of {rows.training_tokens:,} tokens "
            f"fill about {_places(rows) / length:,.1f} packed ones of {length:,}, and one step "
            f"reads {batch:,}. Give more instructions with --data, or a recipe with a smaller "
            "batch."
        )
