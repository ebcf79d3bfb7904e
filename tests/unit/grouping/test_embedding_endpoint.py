from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mira_megatron.grouping.embedders import EmbedderConfig, embed

KEY = "sk-very-secret"

# From the texts asked about to status, headers and body.
Reply = Callable[[list[str]], tuple[int, dict[str, str], bytes]]


def vector_of(text: str) -> list[float]:
    """What the server below answers: how many a, b and c a text has."""
    return [float(text.count(letter)) for letter in "abc"]


def data(vectors: list[Any]) -> bytes:
    entries = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return json.dumps({"object": "list", "data": entries[::-1]}).encode()


def fine(texts: list[str]) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, data([vector_of(text) for text in texts])


def saying(body: bytes) -> Reply:
    return lambda texts: (200, {}, body)


class EmbeddingServer(ThreadingHTTPServer):
    """A server that plays one reply per request, the last one for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: list[Reply] = [fine]
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, EmbeddingServer)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append({**body, "path": self.path})
            server.keys.append(self.headers["Authorization"])
            reply = server.replies[0] if len(server.replies) == 1 else server.replies.pop(0)
        status, headers, content = reply(body["input"])
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def config(server: EmbeddingServer, **changes: Any) -> EmbedderConfig:
    made = EmbedderConfig(
        engine="endpoint",
        model="m",
        dimensions=3,
        max_chars=100,
        endpoints=[server.url],
        batch_size=2,
        max_in_flight=2,
        timeout_seconds=20,
        max_retries=1,
    )
    return dataclasses.replace(made, **changes)


def refused(server: EmbeddingServer, **changes: Any) -> str:
    with pytest.raises(ValueError, match="embedding endpoint") as error:
        embed(["a", "b"], config(server, **changes), seed=1, api_key=KEY)
    assert error.value.__cause__ is None
    assert server.url in str(error.value)
    return str(error.value)


def test_vectors_come_in_the_order_of_the_texts(server: EmbeddingServer) -> None:
    vectors = embed(["a", "b", "", "c", "aab"], config(server), seed=1, api_key=KEY)
    root = 5**0.5
    assert vectors.tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
        [0, 0, 1],
        pytest.approx([2 / root, 1 / root, 0]),
    ]
    assert sorted(text for body in server.bodies for text in body["input"]) == [
        "a",
        "aab",
        "b",
        "c",
    ]
    assert {body["path"] for body in server.bodies} == {"/v1/embeddings"}
    assert {body["model"] for body in server.bodies} == {"m"}
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_dimensions_are_asked_for_only_when_the_server_shortens(server: EmbeddingServer) -> None:
    embed(["a"], config(server), seed=1)
    embed(["a"], config(server, shortened_by_server=True), seed=1)
    assert [body.get("dimensions") for body in server.bodies] == [None, 3]


def test_endpoints_take_batches_in_turn(server: EmbeddingServer) -> None:
    urls = [f"{server.url}/one", f"{server.url}/two"]
    embed(["a", "b", "c", "ab"], config(server, endpoints=urls), seed=1)
    paths = sorted(body["path"] for body in server.bodies)
    assert paths == ["/v1/one/embeddings", "/v1/two/embeddings"]


def test_busy_server_is_asked_again_when_it_says(server: EmbeddingServer) -> None:
    server.replies = [lambda texts: (429, {"Retry-After": "0.05"}, b"slow down"), fine]
    assert embed(["a"], config(server), seed=1).tolist() == [[1, 0, 0]]
    assert len(server.bodies) == 2


def test_failing_server_is_asked_again(server: EmbeddingServer) -> None:
    server.replies = [lambda texts: (500, {"retry-after-ms": "10"}, b"oops"), fine]
    assert embed(["a"], config(server), seed=1).tolist() == [[1, 0, 0]]


def test_server_that_keeps_failing_is_an_error_without_the_key(server: EmbeddingServer) -> None:
    body = f"no access for {KEY}".encode()
    server.replies = [lambda texts: (500, {"retry-after-ms": "10"}, body)]
    message = refused(server)
    assert "no access for <api key>" in message
    assert KEY not in message
    assert len(server.bodies) == 2


def test_wrong_key_is_not_tried_again(server: EmbeddingServer) -> None:
    server.replies = [lambda texts: (401, {}, f"wrong key {KEY}".encode())]
    assert KEY not in refused(server)
    assert len(server.bodies) == 1


def test_redirect_is_not_followed(server: EmbeddingServer) -> None:
    server.replies = [lambda texts: (307, {"Location": f"{server.url}/elsewhere"}, b"")]
    assert "307" in refused(server, max_retries=0)
    assert len(server.bodies) == 1


def test_server_that_is_not_there_is_an_error() -> None:
    with EmbeddingServer() as gone:
        pass
    assert "onnection" in refused(gone, max_retries=0)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (data([[1, 2, 3]]), "expected 2 vectors of 3 numbers, found 1"),
        (data([[1, 2, 3], [1, 2]]), "found [2, 3] numbers: correct embedder.dimensions"),
        (data([[1, 2, 3, 4]] * 2), "found [4] numbers: correct embedder.dimensions"),
        (data([[1, 2, 3], [1, 2, None]]), "found some that are not finite"),
        (data([[1, 2, 3], [1, 2, 1e39]]), "found some that are not finite"),
        (data([[1, 2, 3], [1, 2, "three"]]), "expected 2 vectors of 3 numbers, found {"),
        (data([[1, 2, 3], [1, 2, [3]]]), "expected 2 vectors of 3 numbers, found {"),
        (b'{"data": [{"index": 0}, {"index": 0}]}', "expected 2 vectors of 3 numbers, found 1"),
        (b'{"data": [{}, {}]}', "expected 2 vectors of 3 numbers, found {"),
        (b'{"data": null}', 'found {"data": null}'),
        (b'["data"]', 'found ["data"]'),
        (b"<html>welcome</html>", "found <html>welcome</html>"),
    ],
)
def test_wrong_answer_is_an_error_saying_what_came(
    server: EmbeddingServer, body: bytes, found: str
) -> None:
    server.replies = [saying(body)]
    assert found in refused(server)


def test_answers_are_kept_for_a_run_that_goes_on(server: EmbeddingServer, tmp_path: Path) -> None:
    texts = ["a", "b", "c", "ab"]
    one_by_one = config(server, max_in_flight=1)
    server.replies = [fine, saying(b"down")]
    with pytest.raises(ValueError, match="down"):
        embed(texts, one_by_one, seed=1, cache_folder=tmp_path / "cache")
    server.replies, server.bodies = [fine], []
    vectors = embed(texts, one_by_one, seed=1, cache_folder=tmp_path / "cache")
    assert [body["input"] for body in server.bodies] == [["c", "ab"]]
    assert np.array_equal(vectors, embed(texts, one_by_one, seed=1))
    another_model = config(server, model="n")
    embed(texts[:2], another_model, seed=1, cache_folder=tmp_path / "cache")
    assert server.bodies[-1]["model"] == "n"


def test_nothing_more_is_asked_once_an_answer_is_wrong(server: EmbeddingServer) -> None:
    server.replies = [saying(b"down")]
    with pytest.raises(ValueError, match="down"):
        embed(["a"] * 100, config(server, max_in_flight=1), seed=1)
    assert len(server.bodies) < 5


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a/v1", f"http://me:{KEY}@a/v1", f"http://a/v1?key={KEY}"]
)
def test_url_that_is_no_base_url_is_refused_without_its_key(
    server: EmbeddingServer, url: str
) -> None:
    with pytest.raises(ValueError, match="expected a base URL") as error:
        embed(["a"], config(server, endpoints=[url]), seed=1)
    assert KEY not in str(error.value)


def test_key_that_no_header_can_carry_is_refused_unquoted(server: EmbeddingServer) -> None:
    with pytest.raises(ValueError, match="no HTTP header") as error:
        embed(["a"], config(server), seed=1, api_key=f"{KEY}\n")
    assert KEY not in str(error.value)
