"""Half of a server that two nodes run together; the first node's half answers for both.

Told its node, the port of the halves' own connection, and for the first the port that it answers on
and the address of the scorer that it asks. As with a model that is spread over nodes, it answers
once the other half is there, and neither lives without the other.
"""

from __future__ import annotations

import http.server
import os
import signal
import socket
import sys
import threading
import time
import urllib.request

HANDED_ON = "handed on an answer"
_END_SECONDS = 3.0
connections: list[socket.socket] = []  # to the other half


class Forwarding(http.server.BaseHTTPRequestHandler):
    """Asks the scorer what it is asked."""

    def do_GET(self) -> None:
        """Says that it is well, to who asks that."""
        self._answer(200 if self.path == "/health" else 404, b"")

    def do_POST(self) -> None:
        """Hands on a question, and its answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = urllib.request.Request(
            f"{SCORER}/chat/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=300) as answer:
            text = answer.read()
        if connections:  # half a model answers nothing
            self._answer(200, text)
            say(HANDED_ON)

    def log_message(self, format: str, *words: object) -> None:
        """Says nothing of requests."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def say(words: str) -> None:
    """Writes a line for the server's log."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def other_half(port: int) -> socket.socket:
    """Returns the connection to the other half once it is there."""
    if NODE == 0:
        with socket.create_server(("127.0.0.1", port)) as listener:
            return listener.accept()[0]
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.05)


def end_in_order(number: int, frame: object) -> None:
    """Ends as it is told to; of the first half the other hears at once, and it takes a while."""
    if NODE == 0 and connections:
        connections.pop().shutdown(socket.SHUT_RDWR)
        time.sleep(_END_SECONDS)
    say(f"half {NODE} ended in order")
    os._exit(0)


if __name__ == "__main__":
    NODE, SCORER = int(sys.argv[1]), sys.argv[4]
    signal.signal(signal.SIGTERM, end_in_order)
    say(f"half {NODE} has pid {os.getpid()}")
    connections.append(other_half(int(sys.argv[2])))
    if NODE == 0:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Forwarding)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    connections[0].recv(1)
    sys.exit(f"half {NODE} is alone")
