"""Under which key an answer is kept: a digest of everything that decides it.

That is the model, how it is asked, and every message: so of a record what is shown of it, the
prompt and the anchors. Nothing of where the record stands, of its id, or of who answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

_DIGEST_BYTES = 16


class QuestionKeys:
    """The keys of questions that are asked alike."""

    def __init__(self, asked: Sequence[Any]) -> None:
        """Takes what decides an answer besides its messages, as plain values."""
        content = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
        self._asked = blake2b(digest_size=_DIGEST_BYTES)
        self._asked.update(len(content).to_bytes(8, "big") + content)

    def key(self, messages: Sequence[bytes]) -> str:
        """Returns 32 hex digits; `messages` are the JSON of each message, in order."""
        digest = self._asked.copy()
        # Digests are of one length, so no two lists of messages give the same bytes.
        for message in messages[:-1]:
            digest.update(_shared_digest(message))
        digest.update(messages[-1])
        return digest.hexdigest()


def encoded_messages(messages: Sequence[dict[str, str]]) -> list[bytes]:
    """Returns the JSON of every message; raises orjson.JSONEncodeError for half a character."""
    *shared, last = messages
    encoded = [_encoded_once(each["role"], each["content"]) for each in shared]
    return [*encoded, _encoded(last["role"], last["content"])]


def _encoded(role: str, content: str) -> bytes:
    return orjson.dumps({"role": role, "content": content})


# What comes before a record is one text for a whole group: its JSON and digest are made once.
_encoded_once = lru_cache(maxsize=64)(_encoded)


@lru_cache(maxsize=64)
def _shared_digest(message: bytes) -> bytes:
    return blake2b(message, digest_size=_DIGEST_BYTES).digest()
