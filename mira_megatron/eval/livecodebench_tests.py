"""The tests of a LiveCodeBench task, as its raw files hold them.

Public tests are JSON. Private ones are JSON too, or what the publisher packed: base64 of zlib of a
pickle of one text, which is JSON. No pickle is loaded: its few instructions that make a text are
read, and any other is refused.
"""

from __future__ import annotations

import base64
import json
import pickletools
import zlib
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1 << 30  # of one task's private tests, unpacked
# A text, and the bookkeeping around it; nothing that looks up, calls or builds.
_HARMLESS = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP")
_TEXT = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")


@dataclass(frozen=True, kw_only=True, slots=True)
class LcbTest:
    """One test: lines of JSON arguments and a JSON value, or what is read and printed."""

    input: str
    output: str
    is_functional: bool


def unpacked_tests(
    public: str, private: str, where: object, max_bytes: int = MAX_BYTES
) -> tuple[LcbTest, ...]:
    """Returns the public tests, then the private ones. Raises ValueError naming `where`."""
    try:
        entries = [*_list(json.loads(public)), *_private(private, max_bytes)]
        return tuple(map(_test, entries))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: tests that are not in LiveCodeBench's format: {error}. Get the file anew"
        ) from error


def _private(text: str, max_bytes: int) -> list[Any]:
    try:
        return _list(json.loads(text))
    except json.JSONDecodeError:
        packed = base64.b64decode(text, validate=True)
        return _list(json.loads(_pickled_text(_decompressed(packed, max_bytes))))


def _decompressed(content: bytes, max_bytes: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(content, max_bytes)
    except zlib.error as error:
        raise ValueError(f"private tests do not unpack ({error})") from error
    if not unpacking.eof:
        raise ValueError(f"private tests are cut off, or unpack to more than {max_bytes:,} bytes")
    return unpacked


def _pickled_text(content: bytes) -> str:
    """Returns the text that a pickle holds, without loading it."""
    texts = []
    for instruction, argument, _ in pickletools.genops(content):
        if instruction.name in _TEXT:
            texts.append(str(argument))
        elif instruction.name not in _HARMLESS:
            raise ValueError(f"private tests hold the pickle instruction {instruction.name}")
    if len(texts) != 1:
        raise ValueError(f"private tests are a pickle of {len(texts)} texts, expected one")
    return texts[0]


def _list(entries: Any) -> list[Any]:
    if not isinstance(entries, list):
        raise ValueError(f"{type(entries).__name__}, expected a list")
    return entries


def _test(entry: Any) -> LcbTest:
    match entry:
        case {"input": str(given), "output": str(expected), "testtype": "stdin" | "functional"}:
            return LcbTest(
                input=given, output=expected, is_functional=entry["testtype"] == "functional"
            )
        case _:
            raise ValueError(f"{str(entry)[:60]!r} is no test")
