"""Megatron's indices of a blend's training prefixes, built by Megatron's own builder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mira_megatron.provenance.cached_indices import (
    BlendIndices,
    WantedPrefix,
    read_cached_indices,
)
from mira_megatron.provenance.replay import DataRequest, PrefixBlend, build_splits, one_process
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer


def rebuild_indices(
    wanted: Sequence[WantedPrefix],
    *,
    num_samples: int | None,
    weights: Sequence[float] | None,
    keep_masks: Mapping[str, str] | None,
    vocab_size: int,
    eod_id: int,
) -> BlendIndices:
    """Returns the indices that a trainer builds for these prefixes, as it builds them.

    `num_samples` is what the trainer asks for, None one exhaustive pass, which weights do not have.
    `keep_masks` (path prefix -> mask) makes it KeepMaskGPTDataset. Nothing is left on disk: about
    4 bytes per document and 20 per sample lie in the temporary folder meanwhile.
    """
    request = DataRequest(
        blends=(
            PrefixBlend(
                prefixes=tuple(str(prefix.path_prefix) for prefix in wanted),
                weights=None if weights is None else tuple(weights),
            ),
            None,
            None,
        ),
        sequence_length=wanted[0].sequence_length,
        seed=wanted[0].seed,
        tokenizer=BlendTokenizer(vocab_size=vocab_size, eod=eod_id),
        num_samples=(num_samples, None, None),
        keep_masks=keep_masks,
    )
    with TemporaryDirectory(prefix="mira-indices-") as folder, one_process():
        build_splits(request, Path(folder))
        # Mapped files stay readable after the folder is gone.
        indices = read_cached_indices(Path(folder), wanted, num_samples=None, weights=weights)
    return replace(indices, origin="Megatron's builder, in a temporary folder")
