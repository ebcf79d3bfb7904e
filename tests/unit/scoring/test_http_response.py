from __future__ import annotations

import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.http_response import (
    BrokenBodyError,
    HttpResponse,
    NotHttpError,
    ResponseReader,
)

_MOST = 1_000
_OK = b"HTTP/1.1 200 OK\r\n"


def _read(*parts: bytes) -> HttpResponse | None:
    """Returns what is read of parts that arrive one by one; nothing may follow the response."""
    reader = ResponseReader(_MOST)
    response = None
    for part in parts:
        assert response is None
        response = reader.feed(part)
    return response


def _read_until_closed(*parts: bytes) -> HttpResponse | None:
    reader = ResponseReader(_MOST)
    assert [reader.feed(part) for part in parts] == [None] * len(parts)
    return reader.feed_end()


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[first:last] for first, last in pairwise(bounds)]


_PLACES = st.lists(st.integers(0, 1 << 20), max_size=9)


@given(body=st.binary(max_size=_MOST), places=_PLACES)
def test_reader_body_by_length_is_the_same_however_it_arrives(
    body: bytes, places: list[int]
) -> None:
    sent = b"%bContent-LENGTH:  %d \r\nDate: x: y\r\n\r\n%b" % (_OK, len(body), body)
    headers = {b"content-length": b"%d" % len(body), b"date": b"x: y"}
    assert _read(*_cut(sent, places)) == HttpResponse(200, headers, body, False)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=90), max_size=9),
    extension=st.sampled_from([b"", b";a=b", b" ; a"]),
    trailer=st.sampled_from([b"", b"A: b\r\n"]),
    places=_PLACES,
)
def test_reader_body_in_chunks_is_the_same_however_it_arrives(
    chunks: list[bytes], extension: bytes, trailer: bytes, places: list[int]
) -> None:
    framed = b"".join(b"%X%b\r\n%b\r\n" % (len(each), extension, each) for each in chunks)
    sent = b"%bTransfer-Encoding: Chunked\r\n\r\n%b0\r\n%b\r\n" % (_OK, framed, trailer)
    response = _read(*_cut(sent, places))
    assert response is not None
    assert (response.body, response.is_last) == (b"".join(chunks), False)


@given(
    start=st.sampled_from([b"", _OK, _OK + b"Transfer-Encoding: chunked\r\n\r\n"]),
    parts=st.lists(st.binary(max_size=50) | st.sampled_from([b"\r\n", b"5\r\n", b"a: b"])),
)
def test_reader_any_bytes_are_a_response_or_one_of_two_errors(
    start: bytes, parts: list[bytes]
) -> None:
    reader = ResponseReader(_MOST)
    try:
        for part in (start, *parts):
            if reader.feed(part) is not None:
                return
        reader.feed_end()
    except (NotHttpError, BrokenBodyError):
        pass


@pytest.mark.parametrize(
    ("head", "is_last"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2", False),
        (b"HTTP/1.1 200\r\nContent-Length: 2, 2", False),
        (b"HTTP/1.1 200 OK\r\nConnection: a, Close\r\nContent-Length: 2", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2", True),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2", False),
        (
            b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n"
            + _OK
            + b"Content-Length: 2",
            False,
        ),
    ],
)
def test_reader_connection_is_kept_where_the_server_keeps_it(head: bytes, is_last: bool) -> None:
    response = _read(head + b"\r\n\r\nok")
    assert response is not None
    assert (response.status, response.body, response.is_last) == (200, b"ok", is_last)


def test_reader_what_follows_unasked_ends_the_connection() -> None:
    response = _read(_OK + b"Content-Length: 2\r\n\r\nok" + _OK)
    assert response is not None
    assert (response.body, response.is_last) == (b"ok", True)


def test_reader_of_length_and_chunks_the_chunks_count_and_the_connection_ends() -> None:
    head = b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = _read(_OK + head + b"2\r\nok\r\n0\r\n\r\n")
    assert response is not None
    assert (response.body, response.is_last) == (b"ok", True)


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_reader_status_without_body_has_none(status: bytes) -> None:
    response = _read(b"HTTP/1.1 %b x\r\nContent-Length: 9\r\n\r\n" % status)
    assert response is not None
    assert (response.body, response.is_last) == (b"", False)


def test_reader_body_without_length_ends_with_the_connection() -> None:
    response = _read_until_closed(_OK + b"\r\no", b"k")
    assert response is not None
    assert (response.body, response.is_last) == (b"ok", True)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        _OK,
        _OK + b"Content-Length: 3\r\n\r\nok",
        _OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    ],
)
def test_reader_response_that_was_cut_off_is_none(sent: bytes) -> None:
    assert _read_until_closed(sent) is None


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        _OK + b"no colon\r\n\r\n",
        _OK + b" folded: x\r\n\r\n",
        _OK + b"Content-Length : 2\r\n\r\nok",
        _OK + b"Content-Length: -2\r\n\r\nok",
        _OK + b"Content-Length: 0x2\r\n\r\nok",
        _OK + b"Content-Length: 0000000000000000002\r\n\r\nok",
        _OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        _OK + b"A: " + b"b" * (1 << 16),
    ],
)
def test_reader_what_is_no_http_is_refused(sent: bytes) -> None:
    with pytest.raises(NotHttpError):
        _read(sent)


@pytest.mark.parametrize("chunks", [b"x\r\n", b"-2\r\n", b"\r\n", b"2\r\nokay\r\n", b"1" * 8_192])
def test_reader_broken_chunks_are_a_broken_body(chunks: bytes) -> None:
    with pytest.raises(BrokenBodyError):
        _read(_OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 1001\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1_001,
        b"\r\n" + b"x" * 1_001,
        b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(gzip.compress(b" " * 1_001)), gzip.compress(b" " * 1_001)),
    ],
)
def test_reader_body_that_is_too_long_is_not_read_to_its_end(sent: bytes) -> None:
    response = _read(_OK + sent)
    assert response is not None
    assert response.body is None


def _raw_deflated(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (b"gzip", gzip.compress(b"fine")),
        (b"X-GZip", gzip.compress(b"fi") + gzip.compress(b"ne")),
        (b"deflate", zlib.compress(b"fine")),
        (b"deflate", _raw_deflated(b"fine")),
        (b"identity", b"fine"),
    ],
)
def test_reader_compressed_body_is_unpacked(encoding: bytes, packed: bytes) -> None:
    head = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding, len(packed))
    response = _read(_OK + head + packed)
    assert response is not None
    assert response.body == b"fine"


def test_reader_compressed_body_that_is_too_long_is_not_unpacked_to_its_end() -> None:
    packed = gzip.compress(b" " * (16 << 20))
    reader = ResponseReader(1 << 16)
    tracemalloc.start()
    try:
        head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        response = reader.feed(_OK + head + packed)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response is not None
    assert response.body is None
    assert peak_bytes < 1 << 20  # of 16 MiB


@pytest.mark.parametrize("packed", [b"no gzip at all", gzip.compress(b"fine")[:-1]])
def test_reader_body_that_is_not_compressed_as_it_says_is_broken(packed: bytes) -> None:
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with pytest.raises(BrokenBodyError, match="gzip"):
        _read(_OK + head + packed)
