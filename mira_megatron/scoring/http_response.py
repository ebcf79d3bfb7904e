"""One HTTP/1.1 response, read from bytes as they arrive (RFC 9112); nothing is sent or waited for.

What a chat completion needs and no more: a body by length, in chunks or up to the end of the
connection, gzip and deflate. Everything is bounded: a head that is longer than any server's is an
error, and of a body that is longer than a caller can use nothing more is read.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_MAX_HEAD_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 13  # of a chunk's size and its extensions, or of a trailer
_BEGINNING = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: [^\0]*)?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_EMPTY = (204, 304)


class NotHttpError(Exception):
    """What came is the head of no HTTP/1.1 response."""


class BrokenBodyError(Exception):
    """A body that is not framed or compressed as its head says."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response as far as it is of use; header names are in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes | None  # decompressed; None: longer than was to be read
    is_last: bool  # no further response can come on this connection


class ResponseReader:
    """Reads the response to one request; a new one is made for the next."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._received = bytearray()
        self._status = 0  # 0: the head has not ended
        self._headers: dict[bytes, bytes] = {}
        self._is_last = False
        self._num_left: int | None = None  # bytes of the body that are to come; None: not known
        self._chunks: _Chunks | None = None

    def feed(self, data: bytes) -> HttpResponse | None:
        """Returns the response once it is whole; raises NotHttpError or BrokenBodyError."""
        received = self._received
        received += data
        while not self._status:
            end = received.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
            if end < 0:
                if not received.startswith(_BEGINNING[: len(received)]):
                    raise NotHttpError(f"it begins with {bytes(received[:80])!r}")
                if len(received) >= _MAX_HEAD_BYTES:
                    raise NotHttpError("its head does not end")
                return None
            head = bytes(received[:end])
            del received[: end + 4]
            self._read_head(head)
        if self._chunks is not None:
            is_whole = self._chunks.take(received)
            num_bytes = len(self._chunks.body)
        else:
            num_bytes = self._num_left if self._num_left is not None else len(received)
            is_whole = num_bytes == self._num_left and len(received) >= num_bytes
        if num_bytes > self._max_body_bytes:
            return HttpResponse(self._status, self._headers, None, True)
        return self._whole() if is_whole else None

    def feed_end(self) -> HttpResponse | None:
        """Returns the response that ends with its connection; None where one was cut off."""
        is_open_ended = self._status and self._num_left is None and self._chunks is None
        return self._whole() if is_open_ended else None

    def _whole(self) -> HttpResponse:
        received = self._received
        if self._chunks is not None:
            body = bytes(self._chunks.body)
            num_over = len(received)
        elif self._num_left is not None:
            body = bytes(received[: self._num_left])
            num_over = len(received) - self._num_left
        else:
            body, num_over = bytes(received), 0
        plain: bytes | None = body
        encoding = self._headers.get(b"content-encoding")
        if encoding is not None and body:
            plain = _decompressed(body, encoding.strip().lower(), self._max_body_bytes)
        # What follows a response that was not asked for cannot be told from the next response.
        return HttpResponse(self._status, self._headers, plain, self._is_last or num_over > 0)

    def _read_head(self, head: bytes) -> None:
        """Takes in a head; one of status 1xx only announces another."""
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(first)
        if status_line is None:
            raise NotHttpError(f"it begins with {first[:80]!r}")
        minor, status = int(status_line[1]), int(status_line[2])
        headers = _headers(lines)
        if status == 101:
            raise NotHttpError("it changes the protocol, which was not asked for")
        if status < 200:
            return
        self._status, self._headers = status, headers
        connection = headers.get(b"connection", b"").lower()
        options = [word.strip() for word in connection.split(b",")] if connection else ()
        self._is_last = b"close" in options or (minor == 0 and b"keep-alive" not in options)
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if status in _EMPTY:
            self._num_left = 0
        elif coding is not None:
            if coding.lower() != b"chunked":
                raise NotHttpError(f"its transfer coding is {coding[:80]!r}")
            self._chunks = _Chunks(self._max_body_bytes)
            # Of a message with both, a proxy may have gone by the other.
            self._is_last |= length is not None
        elif length is not None:
            self._num_left = _length(length)
        else:
            self._is_last = True


class _Chunks:
    """A body in chunks."""

    def __init__(self, max_bytes: int) -> None:
        self.body = bytearray()
        self._max_bytes = max_bytes
        self._num_left = 0  # bytes of the chunk, with the line end after them
        self._is_trailing = False  # after the last chunk

    def take(self, received: bytearray) -> bool:
        """Takes what came off its front; returns whether the body is whole, or too long."""
        while len(self.body) <= self._max_bytes:
            if self._num_left > 2:
                part = received[: self._num_left - 2]
                self.body += part
                self._num_left -= len(part)
                del received[: len(part)]
                if self._num_left > 2:
                    return False
            end = received.find(b"\n", 0, _MAX_LINE_BYTES)
            if end < 0:
                if len(received) >= _MAX_LINE_BYTES:
                    raise BrokenBodyError("a line between its chunks does not end")
                return False
            line = bytes(received[:end]).removesuffix(b"\r")
            del received[: end + 1]
            if self._num_left:
                if line:
                    raise BrokenBodyError(f"a chunk is followed by {line[:80]!r}")
                self._num_left = 0
            elif not self._is_trailing:
                self._begin(line)
            elif not line:
                return True
        return True

    def _begin(self, line: bytes) -> None:
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise BrokenBodyError(f"a chunk has the size {line[:80]!r}")
        num_bytes = int(size[1], 16)
        self._is_trailing = not num_bytes
        self._num_left = num_bytes and num_bytes + 2


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    """Returns headers by name; of several with one name, the values with commas between them."""
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        is_name = name.replace(b"-", b"").isalnum() or _NAME.fullmatch(name)
        if not colon or not is_name:
            raise NotHttpError(f"its head has the line {line[:80]!r}")
        name, value = name.lower(), value.strip()
        headers[name] = value if name not in headers else b"%b, %b" % (headers[name], value)
    return headers


def _length(written: bytes) -> int:
    if written.isdigit() and len(written) <= 18:  # as nearly all are
        return int(written)
    length, *others = (each.strip() for each in written.split(b","))
    if any(other != length for other in others) or not _LENGTH.fullmatch(length):
        raise NotHttpError(f"its length is {written[:80]!r}")
    return int(length)


def _decompressed(body: bytes, encoding: bytes, max_bytes: int) -> bytes | None:
    """Returns a body without its content coding; None for more than `max_bytes`.

    A coding that was not asked for is left: what it hides is no chat completion.
    """
    if encoding in (b"gzip", b"x-gzip"):
        window_bits = 16 + zlib.MAX_WBITS
    elif encoding == b"deflate":
        # Many servers leave out zlib's frame, whose first byte this would be.
        window_bits = zlib.MAX_WBITS if body[0] & 0xF == 8 else -zlib.MAX_WBITS
    else:
        return body
    plain = bytearray()
    while body:  # gzip allows for several members
        member = zlib.decompressobj(window_bits)
        try:
            plain += member.decompress(body, max_bytes + 1 - len(plain))
        except zlib.error as error:
            raise BrokenBodyError(f"its {encoding.decode()} coding: {error}") from error
        if len(plain) > max_bytes:
            return None
        if not member.eof:
            raise BrokenBodyError(f"its {encoding.decode()} coding does not end")
        body = member.unused_data
    return bytes(plain)
