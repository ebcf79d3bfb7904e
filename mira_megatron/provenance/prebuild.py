"""Build Megatron's index caches before the training, on any machine with a CPU.

The cache's key holds the tokenizer as the trainer's own class describes itself, so the trainer is
to be named: `megatron_lm_identity`, `bridge_identity` and `nemo_identity` give what the versions in
their docstrings use for a Hugging Face tokenizer. Everything else of the key is in the request:
prefixes as the trainer is given them (letter by letter), seed, sequence length, split, samples.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mira_megatron.doctor.finding import ERROR
from mira_megatron.provenance.index_caches import check_caches, link_complete
from mira_megatron.provenance.replay import DataRequest, build_splits, one_process

_TEXT_TOKENIZER = "megatron.core.tokenizers.text.models.default_tokenizer.DefaultTokenizerText"
_NEMO_TOKENIZER = "nemo.collections.common.tokenizers.huggingface.auto_tokenizer.AutoTokenizer"
_UNFINISHED = ".building"


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentifiedTokenizer:
    """What Megatron's datasets ask of a tokenizer; it goes by another one's name."""

    vocab_size: int
    eod: int
    unique_identifiers: Mapping[str, Any]

    @property
    def pad(self) -> int:
        """Returns an id that no token has; indices do not depend on it."""
        return -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Prebuilt:
    """What lies in the cache after `prebuild`."""

    cache_folder: Path
    num_files_written: int  # 0 where everything was there
    num_files_found: int  # before, of any training
    num_samples: Mapping[str, int]  # by split
    seconds: float


def prebuild(
    request: DataRequest, cache_folder: Path, *, identity: Mapping[str, Any] | None = None
) -> Prebuilt:
    """Returns what was built into `cache_folder`, so that the trainer loads and does not build.

    `identity` is the trainer's tokenizer as it describes itself; None: our own trainer's. Files
    appear when all are whole: Megatron itself would take what a killed run left of an array. Raises
    ValueError where the folder holds a stale or damaged cache.
    """
    stale = [finding for finding in check_caches(cache_folder) if finding.level == ERROR]
    if stale:
        raise ValueError(
            f"{stale[0].where}: {stale[0].what}. Megatron would take it: {stale[0].way_out} "
            f"({len(stale):,} such in this folder)"
        )
    if identity is not None:
        own = request.tokenizer
        named = IdentifiedTokenizer(
            vocab_size=own.vocab_size, eod=own.eod, unique_identifiers=identity
        )
        request = replace(request, tokenizer=named)
    started = time.monotonic()
    cache_folder.mkdir(parents=True, exist_ok=True)
    building = cache_folder / _UNFINISHED
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    num_found = link_complete(cache_folder, building)
    with one_process():
        num_samples = {
            name: split.num_drawn for name, split in build_splits(request, building).items()
        }
    written = [path for path in sorted(building.iterdir()) if not path.is_symlink()]
    for path in written:
        os.replace(path, cache_folder / path.name)
    shutil.rmtree(building)
    return Prebuilt(
        cache_folder=cache_folder,
        num_files_written=len(written),
        num_files_found=num_found,
        num_samples=num_samples,
        seconds=time.monotonic() - started,
    )


def megatron_lm_identity(
    tokenizer_model: str,
    *,
    use_fast: bool = False,
    trust_remote_code: bool = False,
    include_special_tokens: bool = False,
    special_tokens: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns Megatron-LM 0.16.1's `--tokenizer-type HuggingFaceTokenizer`, given these options.

    As megatron/core/tokenizers/text/utils/build_tokenizer.py makes it; not `--legacy-tokenizer`.
    """
    return {
        "class": _TEXT_TOKENIZER,
        "tokenizer_path": tokenizer_model,
        "vocab_file": "None",
        "merges_file": "None",
        "additional_special_tokens": str(list(special_tokens)),
        "use_fast": str(use_fast),
        "trust_remote_code": str(trust_remote_code),
        "include_special_tokens": str(include_special_tokens),
    }


def bridge_identity(
    tokenizer_model: str,
    *,
    chat_template: str | None = None,
    special_tokens: Sequence[str] = (),
    hf_tokenizer_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns Megatron-Bridge 0.3.1's TokenizerConfig(tokenizer_type="HuggingFaceTokenizer").

    As megatron/bridge/training/tokenizers/utils.py makes it; not `legacy_tokenizer`.
    """
    return {
        "class": _TEXT_TOKENIZER,
        "tokenizer_path": tokenizer_model,
        "chat_template": str(chat_template),
        "vocab_file": "None",
        "merges_file": "None",
        "additional_special_tokens": str(list(special_tokens)),
        **{name: str(value) for name, value in (hf_tokenizer_kwargs or {}).items()},
    }


def nemo_identity(class_name: str = _NEMO_TOKENIZER) -> dict[str, Any]:
    """Returns what a tokenizer of NeMo 2.7.3 says of itself: its class and no more.

    (nemo/collections/common/tokenizers/tokenizer_spec.py). Two tokenizers of one class share keys.
    """
    return {"class": class_name}
