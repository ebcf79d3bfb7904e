"""Small finished runs with a .bin and .idx for every source, as `explain` reads them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from small_run import SmallRecord, write_run

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    one_sequence_per_document,
    write_index,
)


def write_explained_run(
    folder: Path, sources: Mapping[str, Sequence[SmallRecord]], **settings: Any
) -> Recipe:
    """Writes a run up to the selection, with token files, and returns its recipe."""
    recipe = write_run(folder, sources, **settings)
    shutil.rmtree(recipe.run_folder / layout.blend("mira_group"))
    for source, records in sources.items():
        prefix = recipe.run_folder / layout.tokens(source) / source
        lengths = np.array([record.num_tokens for record in records])
        np.zeros(int(lengths.sum()), np.int32).tofile(bin_path(prefix))
        write_index(idx_path(prefix), one_sequence_per_document(lengths, np.dtype(np.int32)))
    return recipe
