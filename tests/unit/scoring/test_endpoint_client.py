from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from yarl import URL

from mira_megatron.scoring.chat_request import EndpointSettings
from mira_megatron.scoring.endpoint_client import EndpointClient

_KEY = "sk-very-secret"
_SETTINGS = EndpointSettings(
    model="m",
    temperature=0.0,
    top_p=1.0,
    max_tokens=8,
    max_in_flight=4,
    timeout_seconds=5,
    max_retries=0,
    api_key=_KEY,
)


@pytest.mark.parametrize(
    ("health", "models", "is_well", "asked"),
    [
        (200, 404, True, [("/health", None)]),
        (404, 404, True, [("/health", None)]),  # a server without such a page, and well
        (503, 200, True, [("/health", None), ("/v1/models", f"Bearer {_KEY}")]),
        (500, 404, False, [("/health", None), ("/v1/models", f"Bearer {_KEY}")]),
    ],
)
def test_is_well_asks_for_health_and_then_for_models_and_only_there_with_the_key(
    health: int, models: int, is_well: bool, asked: list[tuple[str, str | None]]
) -> None:
    seen: list[tuple[str, str | None]] = []

    async def look(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        return web.Response(status=health if request.path == "/health" else models)

    async def ask() -> bool:
        app = web.Application()
        app.router.add_get("/{page:.*}", look)
        client = EndpointClient(_SETTINGS)
        async with TestServer(app) as server:
            found = await client.is_well(server.make_url("/health"), server.make_url("/v1/models"))
        await client.close()
        return found

    assert asyncio.run(ask()) is is_well
    assert seen == asked


def test_is_well_server_that_is_not_there_is_not() -> None:
    async def ask() -> bool:
        client = EndpointClient(_SETTINGS)
        root = URL(f"http://127.0.0.1:{unused_port()}")
        found = await client.is_well(root / "health", root / "v1" / "models")
        await client.close()
        return found

    assert not asyncio.run(ask())


def test_page_of_metrics_is_asked_for_without_the_key() -> None:
    seen: list[str | None] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(text="vllm:")

    async def ask() -> tuple[int, bytes]:
        app = web.Application()
        app.router.add_get("/metrics", look)
        client = EndpointClient(_SETTINGS)
        async with TestServer(app) as server:
            page = await client.page(server.make_url("/metrics"))
        await client.close()
        return page

    assert asyncio.run(ask()) == (200, b"vllm:")
    assert seen == [None]
