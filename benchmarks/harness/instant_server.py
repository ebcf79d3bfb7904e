"""A chat completion server that answers at once, so that a benchmark times its clients alone.

Every POST gets the same completion: HTTP/1.1 keep-alive, usage included, `--answer-file` as its
text, after `--latency-ms`. Prints its port on a line of its own, serves on 127.0.0.1 until it is
ended. GET /stats tells how many requests there were and how many at most at once, since
GET /stats?reset. A process of its own, so that clients are not billed for it.

    python benchmarks/harness/instant_server.py --port 0 --latency-ms 0 --answer-file answer.txt
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

_RATIONALE = ("It says what it does in short sentences, and shows how; " * 2).strip()
_SLOTS = [f"[A{slot}] Quality {slot}: {slot % 11}/10 — {_RATIONALE}" for slot in range(1, 16)]
_FOOTER = ["overall: 64", "training_recommendation: keep", "domain_tag: notes", "brief: A note."]
_DEFAULT_ANSWER = "\n".join([*_SLOTS, *_FOOTER])  # some 2.5 KB


@dataclass(slots=True)
class Served:
    """What is answered, and what was asked."""

    completion: bytes
    latency_seconds: float
    num_requests: int = 0
    num_body_bytes: int = 0
    num_open: int = 0
    most_open: int = 0

    def stats(self) -> bytes:
        """Returns the counts, as JSON."""
        counts = {
            "num_requests": self.num_requests,
            "num_body_bytes": self.num_body_bytes,
            "most_open": self.most_open,
        }
        return json.dumps(counts).encode()

    def reset(self) -> None:
        """Counts from nothing again."""
        self.num_requests = self.num_body_bytes = 0
        self.most_open = self.num_open


class Connection(asyncio.Protocol):
    """One client's connection: requests in, one reply for each, in their order."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._received = bytearray()
        self._num_left = 0  # bytes of the body that is being received
        self._is_last = False  # the client wants the connection closed after this reply
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps where to write."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answers every request that is whole."""
        received = self._received
        received += data
        while received:
            if not self._num_left:
                end = received.find(b"\r\n\r\n")
                if end < 0:
                    return
                head = bytes(received[:end])
                del received[: end + 4]
                if not head.startswith(b"POST "):
                    self._write(_page(self._served, head.split(b" ", 2)[1]))
                    continue
                lines = head.lower()
                self._num_left = _content_length(lines)
                self._is_last = b"\r\nconnection: close" in lines
                self._served.num_body_bytes += self._num_left
            # A body is of no interest: what came of it is thrown away at once.
            num_taken = min(self._num_left, len(received))
            self._num_left -= num_taken
            del received[:num_taken]
            if not self._num_left:
                self._answer()

    def _answer(self) -> None:
        served = self._served
        served.num_requests += 1
        if not served.latency_seconds:
            served.most_open = max(served.most_open, 1)
            self._write(served.completion)
            return
        served.num_open += 1
        served.most_open = max(served.most_open, served.num_open)
        self._loop.call_later(served.latency_seconds, self._answer_now)

    def _answer_now(self) -> None:
        self._served.num_open -= 1
        self._write(self._served.completion)

    def _write(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)
            if self._is_last:
                self._transport.close()


def _page(served: Served, path: bytes) -> bytes:
    """Returns the reply to a GET; whatever there is besides the counts is only there."""
    if path.startswith(b"/stats"):
        counts = served.stats()
        if path.endswith(b"?reset"):
            served.reset()
        return _reply(counts)
    return _reply(b'{"object": "list", "data": []}')


def _content_length(lines: bytes) -> int:
    start = lines.find(b"\r\ncontent-length:")
    if start < 0:
        raise ValueError("a POST without Content-Length: chunked bodies are not understood here")
    return int(lines[start + 17 :].split(b"\r\n", 1)[0])


def _completion(text: str) -> bytes:
    body = {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "instant",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 4000, "completion_tokens": 600, "total_tokens": 4600},
    }
    return _reply(json.dumps(body, ensure_ascii=False).encode())


def _reply(body: bytes) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\nServer: instant\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _serve(port: int, served: Served) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(served), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serves until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--answer-file", type=Path, help="its text is what every completion says")
    words = parser.parse_args()
    text = words.answer_file.read_text("utf-8") if words.answer_file else _DEFAULT_ANSWER
    served = Served(completion=_completion(text), latency_seconds=words.latency_ms / 1000)
    asyncio.run(_serve(words.port, served))


if __name__ == "__main__":
    main()
