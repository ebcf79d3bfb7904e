"""The embedder that asks OpenAI-compatible endpoints (`/v1/embeddings`), through `openai`.

Nothing in an answer is trusted: vectors are counted, measured and checked before they are used. The
API key is in no error.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openai
import orjson

from mira_megatron.atomic_files import write_bytes
from mira_megatron.endpoints import base_url
from mira_megatron.grouping.embedders import EmbedderConfig
from mira_megatron.grouping.unit_vectors import Floats
from mira_megatron.progress import track
from mira_megatron.scoring.completion import shown
from mira_megatron.shards import json_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Endpoint:
    url: str
    client: openai.OpenAI = field(repr=False)
    config: EmbedderConfig
    api_key: str | None = field(repr=False)
    cache_folder: Path | None


def embed_texts(
    texts: Sequence[str],
    config: EmbedderConfig,
    *,
    api_key: str | None,
    cache_folder: Path | None,
) -> Floats:
    """Returns one vector per text, shape (N, D); endpoints take the batches in turn.

    Raises ValueError, naming the endpoint, when an answer is not N vectors of D finite numbers or
    when there is none after all retries.
    """
    endpoints = [_endpoint(url, config, api_key, cache_folder) for url in config.endpoints]
    starts = range(0, len(texts), config.batch_size)
    batches = [list(texts[start : start + config.batch_size]) for start in starts]
    vectors = []
    with (
        track(f"embed {len(texts):,} texts", len(batches)) as advance,
        ThreadPoolExecutor(config.max_in_flight) as pool,
    ):
        in_turn = [endpoints[number % len(endpoints)] for number in range(len(batches))]
        for found in pool.map(_embed_batch, in_turn, batches):  # the first error cancels the rest
            vectors.append(found)
            advance()
    return np.concatenate(vectors)


def _endpoint(
    url: str, config: EmbedderConfig, api_key: str | None, cache_folder: Path | None
) -> _Endpoint:
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("the API key holds characters that no HTTP header can carry")
    client = openai.OpenAI(
        base_url=base_url(url),
        api_key=api_key or "none",  # without one the package looks for a variable of its own
        timeout=config.timeout_seconds,
        max_retries=config.max_retries,
        # A redirect would carry records and key to a place the user did not name.
        http_client=openai.DefaultHttpxClient(follow_redirects=False),
    )
    return _Endpoint(
        url=url, client=client, config=config, api_key=api_key, cache_folder=cache_folder
    )


def _embed_batch(endpoint: _Endpoint, texts: list[str]) -> Floats:
    """Returns the vectors of one batch, from the cache where they are there."""
    if endpoint.cache_folder is None:
        return _ask(endpoint, texts)
    config = endpoint.config
    asked = [config.model, config.dimensions, config.shortened_by_server, texts]
    path = endpoint.cache_folder / f"embeddings-{json_digest(asked)}.npy"
    if path.exists():
        cached: Floats = np.load(path, allow_pickle=False)
        return cached
    vector_ND = _ask(endpoint, texts)
    content = io.BytesIO()
    np.save(content, vector_ND)
    write_bytes(path, content.getvalue())
    return vector_ND


def _ask(endpoint: _Endpoint, texts: list[str]) -> Floats:
    config = endpoint.config
    assert config.model is not None
    try:
        response = endpoint.client.embeddings.with_raw_response.create(
            model=config.model,
            input=texts,
            encoding_format="float",
            extra_body={"dimensions": config.dimensions} if config.shortened_by_server else None,
        )
        return _read(response.content, len(texts), config.dimensions)
    except (openai.OpenAIError, _NoEmbeddings) as error:
        # Not chained: a server may quote the key that it was sent.
        raise ValueError(
            f"embedding endpoint {endpoint.url}, model {config.model!r}: "
            f"{shown(_said(error), endpoint.api_key)}"
        ) from None


def _said(error: Exception) -> str:
    """Returns what an error is about: the server's own words, or what the network said."""
    match error:
        case openai.APIStatusError():
            return f"HTTP {error.status_code}: {error.response.text}"
        case openai.APIConnectionError() if error.__cause__ is not None:
            return f"{error.message} {error.__cause__}"
    return str(error)


class _NoEmbeddings(Exception):
    """An answer that is not what was asked for."""


def _read(received: bytes, num_texts: int, dimensions: int) -> Floats:
    """Returns the vectors of an answer in the order of their texts."""
    expected = f"expected {num_texts} vectors of {dimensions} numbers"
    try:
        items: list[dict[str, Any]] = orjson.loads(received)["data"]
        by_index = {item.get("index", place): item for place, item in enumerate(items)}
        if len(items) != num_texts or by_index.keys() != set(range(num_texts)):
            raise _NoEmbeddings(f"{expected}, found {len(by_index)}")
        vectors = [by_index[index]["embedding"] for index in range(num_texts)]
        lengths = sorted({len(vector) for vector in vectors})
        if lengths != [dimensions]:
            raise _NoEmbeddings(f"{expected}, found {lengths} numbers: correct embedder.dimensions")
        with np.errstate(over="ignore"):  # becomes infinite, and is found below
            vector_ND = np.asarray(vectors, np.float32)
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
        found = received.decode("utf-8", "replace")
        raise _NoEmbeddings(f"{expected}, found {found}") from error
    if vector_ND.shape != (num_texts, dimensions) or not np.isfinite(vector_ND).all():
        raise _NoEmbeddings(f"{expected}, found some that are not finite")
    return vector_ND
