"""Texts to vectors: the `embedder` section of a recipe, and the engines it chooses among.

Each engine is a module of its own, imported when it is used.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.endpoints import check_key_name
from mira_megatron.grouping.unit_vectors import Floats, unit_rows
from mira_megatron.shards import file_digest, json_digest

ENGINES = ("tfidf_svd", "endpoint", "sentence_transformers")
_OF_ENDPOINTS = ("endpoints", "api_key_env", "shortened_by_server")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderConfig:
    """How a text becomes a vector."""

    engine: str  # one of ENGINES
    dimensions: int  # of a vector: for tfidf_svd how many are kept, else what the model gives
    max_chars: int  # of a text; what comes after is not looked at
    model: str | None = None  # name at the endpoint, or folder or hub name; None for tfidf_svd
    # engine=endpoint only:
    shortened_by_server: bool = False  # asks for `dimensions`, where the model can give fewer
    endpoints: list[str] = field(default_factory=list, metadata={"execution": True})
    api_key_env: str | None = field(default=None, metadata={"execution": True})
    max_in_flight: int = field(default=8, metadata={"execution": True})
    timeout_seconds: float = field(default=120.0, metadata={"execution": True})
    max_retries: int = field(default=5, metadata={"execution": True})
    # Not for tfidf_svd:
    batch_size: int = field(default=32, metadata={"execution": True})

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} must be one of {', '.join(ENGINES)}")
        for name in ("dimensions", "max_chars", "max_in_flight", "timeout_seconds", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if self.max_retries < 0:
            raise ValueError(f"max_retries={self.max_retries} must not be negative")
        if (self.model is None) != (self.engine == "tfidf_svd"):
            raise ValueError(
                "engine=tfidf_svd takes no model"
                if self.model is not None
                else f"engine={self.engine} needs model"
            )
        if self.engine == "endpoint" and not self.endpoints:
            raise ValueError("engine=endpoint needs endpoints, such as [http://127.0.0.1:8000/v1]")
        check_key_name(self.api_key_env)
        for name in _OF_ENDPOINTS:
            if self.engine != "endpoint" and getattr(self, name):
                raise ValueError(f"{name} is for engine=endpoint, not for engine={self.engine}")


def recipe_embedder(recipe: Recipe) -> EmbedderConfig:
    """Returns the section `embedder`; a model that is a folder is relative to the recipe's."""
    config = recipe.section("embedder", EmbedderConfig)
    folder = recipe.path_of(config.model) if config.model else None
    is_local = config.engine == "sentence_transformers" and folder is not None and folder.is_dir()
    return replace(config, model=str(folder)) if is_local else config


def embedder_fingerprint(config: EmbedderConfig) -> dict[str, Any]:
    """Returns what decides the vectors: the settings, and the files of a model that is a folder."""
    folder = Path(config.model or "")
    if config.engine != "sentence_transformers" or not folder.is_absolute():
        return fingerprinted(config)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in files]
    return {**fingerprinted(config), "model": folder.name, "model_files": json_digest(digests)}


def embed(
    texts: Sequence[str],
    config: EmbedderConfig,
    *,
    seed: int,
    api_key: str | None = None,
    cache_folder: Path | None = None,
    fold_numbers: bool = False,
) -> Floats:
    """Returns the texts' vectors at length 1, shape (N, D), float32; zeros for a blank text.

    Args:
        texts: what to embed; each is cut to `config.max_chars`.
        config: the engine and its settings.
        seed: decides what tfidf_svd is fitted on.
        api_key: of the endpoints, if they need one.
        cache_folder: where answers of endpoints are kept, so that resuming does not ask again.
        fold_numbers: whether all numbers are one to tfidf_svd; models see texts as they are.

    Raises ValueError when an endpoint or a model gives anything but N vectors of D numbers.
    """
    shown = [text[: config.max_chars] for text in texts]
    filled = [index for index, text in enumerate(shown) if text.strip()]
    vector_ND = np.zeros((len(texts), config.dimensions), np.float32)
    if not filled:
        return vector_ND
    given = [shown[index] for index in filled]
    match config.engine:
        case "tfidf_svd":
            found = _engine("tfidf_svd").embed_texts(
                given, dimensions=config.dimensions, seed=seed, fold_numbers=fold_numbers
            )
        case "endpoint":
            found = _engine("embedding_endpoint").embed_texts(
                given, config, api_key=api_key, cache_folder=cache_folder
            )
        case _:
            found = _engine("sentence_embedder").embed_texts(given, config)
    vector_ND[filled] = unit_rows(found)
    return vector_ND


def _engine(module: str) -> ModuleType:
    return importlib.import_module(f"mira_megatron.grouping.{module}")
