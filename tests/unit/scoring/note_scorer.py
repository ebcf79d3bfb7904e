"""A server that scores the notes of judged_recipes in every form, as a vLLM server would."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mira_megatron.rubric.digits import SCORES_REGEX

_FOOTER = "overall: 5\ntraining_recommendation: keep\ndomain_tag: a\nbrief: b"


@dataclass(slots=True)
class NoteScorer:
    """Gives a note's number plus the slot's, modulo 11; where digits are asked for, `digit`."""

    url: str = ""
    # Note, slot, seed -> score where digits are asked for.
    digit: Callable[[int, int, int], int] = lambda note, slot, seed: (note + slot) % 11
    names: Sequence[str] = ()  # of the anchors, for a prompt that does not say them
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, body: dict[str, Any]) -> str:
        """Returns what is said to a request, and notes the request."""
        self.bodies.append(body)
        text = body["messages"][-1]["content"]
        found = re.search(r"# Note (\d+)", text)
        assert found is not None
        note = int(found[1])
        if body.get("structured_outputs") == {"regex": SCORES_REGEX}:
            return " ".join(str(self.digit(note, slot, body["seed"])) for slot in range(15))
        if text.startswith("<A1>"):
            return "as you like it"
        asked = re.findall(r"(?m)^(\[A\d+\] .*): <score>/10 — ", text)
        named = [f"[A{slot}] {name}" for slot, name in enumerate(self.names, start=1)]
        scores = [f"{line}: {(note + slot) % 11}/10" for slot, line in enumerate(asked or named)]
        return "\n".join([*(f"{line} — why" for line in scores), _FOOTER] if asked else scores)


@contextmanager
def serving(scorer: NoteScorer) -> Iterator[NoteScorer]:
    """Serves until the block ends; `scorer.url` is where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            choice = {"message": {"content": scorer.answer(body)}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 9, "completion_tokens": 9}
            written = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        scorer.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield scorer
        server.shutdown()
        thread.join()
