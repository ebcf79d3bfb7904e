"""An OpenAI-style server for tests of evaluations: real HTTP, with faults in a given order."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["429", "500", "503", "400", "hang", "cut", "reset", "bad_json", "empty", "too_long"]
MODEL = "a-model"
_TOO_LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000."


@dataclass(kw_only=True, slots=True)
class EvalEndpoint:
    """What the server says, and was asked."""

    answer_of: Callable[[str], str] = lambda asked: f"fine {asked}"  # asked: the last words
    finish_reason: str = "stop"
    faults: deque[Fault | None] = field(default_factory=deque)  # of the next requests, one each
    first: Fault | None = None  # of the first of equal requests
    every: Fault | None = None  # of all others
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)  # headers
    num_answered: int = 0
    models: Sequence[str] | None = (MODEL,)
    max_model_len: int = 4096
    weights: str = "/weights"  # folder that the models were read from
    after: Callable[[int], None] = lambda num_answered: None
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> list[str]:
        """Returns the last words of every request."""
        return [asked_in(body) for body in self.bodies]


def asked_in(body: dict[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    return str(body["messages"][-1]["content"])


@contextmanager
def serving(endpoint: EvalEndpoint) -> Iterator[EvalEndpoint]:
    """Serves until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(endpoint))
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler_of(endpoint: EvalEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/v1/models" or endpoint.models is None:
                self._send(404, b"{}")
                return
            models = [
                {
                    "id": name,
                    "root": f"{endpoint.weights}/{name}",
                    "max_model_len": endpoint.max_model_len,
                }
                for name in endpoint.models
            ]
            self._send(200, json.dumps({"data": models}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                is_first = body not in endpoint.bodies
                endpoint.bodies.append(body)
                endpoint.paths.append(self.path)
                endpoint.keys.append(self.headers["Authorization"])
                fault = endpoint.first if is_first else None
                if fault is None:
                    fault = endpoint.faults.popleft() if endpoint.faults else endpoint.every
            if fault is not None:
                self._fail(fault)
                return
            self._send(200, self._completion(endpoint.answer_of(asked_in(body)), body))
            with endpoint.lock:
                endpoint.num_answered += 1
                endpoint.after(endpoint.num_answered)

        def _completion(self, text: str, body: dict[str, Any]) -> bytes:
            said = {"text": text} if "prompt" in body else {"message": {"content": text}}
            choice = {**said, "finish_reason": endpoint.finish_reason}
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            return json.dumps({"choices": [choice], "usage": usage}).encode()

        def _fail(self, fault: Fault) -> None:
            match fault:
                case "429" | "500" | "400":
                    self._send(int(fault), b'{"error": {"message": "no"}}')
                case "503":
                    self._send(503, b"loading", ("Retry-After", "1"))
                case "too_long":
                    self._send(400, json.dumps({"error": {"message": _TOO_LONG}}).encode())
                case "bad_json":
                    self._send(200, b'{"choices": [')
                case "empty":
                    self._send(200, b"")
                case "hang":
                    endpoint.released.wait(30)
                    self.close_connection = True
                case "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "500")
                    self.end_headers()
                    self.wfile.write(b'{"choices": [')
                    self.close_connection = True
                case "reset":
                    self.close_connection = True

        def _send(self, status: int, content: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
