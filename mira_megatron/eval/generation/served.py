"""What endpoints say that they serve: to be written down, and compared with what is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from yarl import URL

from mira_megatron.endpoints import base_url
from mira_megatron.eval.generation.asking import Asked
from mira_megatron.scoring.chat_request import EndpointSettings
from mira_megatron.scoring.completion import shown
from mira_megatron.scoring.endpoint_client import EndpointClient

_LOOK_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One endpoint's own words; all None where it has no list of models."""

    endpoint: str
    model: str | None
    root: str | None  # where vLLM read the weights
    max_model_len: int | None  # tokens of prompt and answer

    def to_json(self) -> dict[str, Any]:
        """Returns a mapping for suite.json."""
        return asdict(self)


def served_models(asked: Asked) -> list[Served]:
    """Returns what each endpoint says of the model.

    Raises ValueError where one lists models and this is not among them.
    """
    return asyncio.run(_served_models(asked))


def check_room(served: Sequence[Served], max_tokens: int) -> None:
    """Raises ValueError where an endpoint's context has no room for an answer of so many tokens.

    It would refuse every prompt as too long.
    """
    for each in served:
        if each.max_model_len is not None and max_tokens >= each.max_model_len:
            raise ValueError(
                f"max_tokens={max_tokens:,} leaves no room for a prompt in the "
                f"{each.max_model_len:,} tokens of {each.endpoint}; give the suite's sampling "
                "profile a smaller max_tokens, or the model a longer context (max_model_len)"
            )


async def _served_models(asked: Asked) -> list[Served]:
    client = EndpointClient(_settings(asked))
    try:
        urls = [base_url(endpoint) for endpoint in asked.endpoints]
        pages = await asyncio.gather(*(client.models(URL(f"{url}/models")) for url in urls))
    finally:
        await client.close()
    return [
        _served(url, body if status == 200 else b"", asked)
        for url, (status, body) in zip(urls, pages, strict=True)
    ]


def _served(endpoint: str, body: bytes, asked: Asked) -> Served:
    models = _models(body)
    found = [each for each in models if each.get("id") == asked.model]
    if models and not found:
        names = ", ".join(_text(each.get("id"), asked) or "?" for each in models[:10])
        raise ValueError(
            f"endpoint {endpoint} serves {names}, not {asked.model!r}; give its name with --model"
        )
    model = found[0] if found else {}
    length = model.get("max_model_len")
    return Served(
        endpoint=endpoint,
        model=_text(model.get("id"), asked),
        root=_text(model.get("root"), asked),
        max_model_len=length if isinstance(length, int) else None,
    )


def _models(body: bytes) -> Sequence[dict[str, Any]]:
    try:
        models = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if not isinstance(models, list):
        return []
    return [model for model in models if isinstance(model, dict)]


def _text(value: Any, asked: Asked) -> str | None:
    return shown(value, asked.api_key) if isinstance(value, str) else None


def _settings(asked: Asked) -> EndpointSettings:
    return EndpointSettings(
        model=asked.model,
        temperature=0.0,
        top_p=1.0,
        max_tokens=1,
        max_in_flight=1,
        timeout_seconds=_LOOK_SECONDS,
        max_retries=0,
        api_key=asked.api_key,
    )
