"""The rule judge behind an OpenAI-compatible endpoint, for runs without a teacher or a scorer.

POST /v1/chat/completions takes the messages that `discovery_prompts.discover_messages` and
`prompts.score_messages` make, and answers each in its own format. Token counts are numbers of
white-space separated words, an estimate.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b

import orjson
from aiohttp import web

from mira_megatron.rubric.discovery_prompts import record_from_discover_message
from mira_megatron.rubric.discovery_replies import format_proposals
from mira_megatron.rubric.prompts import request_from_score_message
from mira_megatron.rubric.replies import format_reply
from mira_megatron.rubric.rule_judge import MODEL_NAME, propose, rate

_MAX_REQUEST_BYTES = 256 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app() -> web.Application:
    """Returns the server's application; it keeps no state between requests."""
    app = web.Application(client_max_size=_MAX_REQUEST_BYTES, middlewares=[_errors_as_json])
    app.router.add_get("/health", _health)
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _chat_completions)
    return app


def serve(host: str = "127.0.0.1", port: int = 8377) -> None:
    """Serves until interrupted. Judging uses one core; OSError where the port is taken."""
    web.run_app(create_app(), host=host, port=port, print=None, access_log=None)


def answer(body: object) -> str:
    """Returns the reply to a parsed chat completion request.

    Raises ValueError, fit to be shown to the caller, for a request this judge cannot answer.
    """
    content = _user_content(body)
    try:
        family, view = record_from_discover_message(content)
    except ValueError:  # the other kind of request, or neither: its own message says so
        family, names, view = request_from_score_message(content)
        return format_reply(names, rate(family, view, names))
    return format_proposals(family, propose(family, view))


def _user_content(body: object) -> str:
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    if body.get("model") != MODEL_NAME:
        raise ValueError(f"model={body.get('model')!r}: this server has {MODEL_NAME!r} only")
    if body.get("stream") or body.get("n", 1) not in (None, 1):
        raise ValueError("this server gives one whole answer: leave out stream, and n above 1")
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise ValueError("messages must be a list")
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            raise ValueError("the user message's content must be a string")
    raise ValueError("messages hold no user message")


async def _chat_completions(request: web.Request) -> web.Response:
    raw = await request.read()
    try:
        reply = answer(orjson.loads(raw))
    except ValueError as error:  # orjson's decoding error is one
        return _error(400, str(error))
    num_prompt, num_output = len(raw.split()), len(reply.split())
    return _json(
        200,
        {
            "id": f"chatcmpl-{blake2b(raw, digest_size=12).hexdigest()}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": MODEL_NAME,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": reply},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": num_prompt,
                "completion_tokens": num_output,
                "total_tokens": num_prompt + num_output,
            },
        },
    )


async def _models(_: web.Request) -> web.Response:
    model = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "mira-megatron"}
    return _json(200, {"object": "list", "data": [model]})


async def _health(_: web.Request) -> web.Response:
    return _json(200, {"status": "ok"})


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives unknown paths, wrong methods and too large bodies the error form of the API."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, error.reason)


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return _json(status, {"error": error})


def _json(status: int, content: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(content), content_type="application/json")
