"""What every client of an OpenAI-compatible endpoint checks before it sends anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def base_url(endpoint: str) -> str:
    """Returns a base URL such as http://127.0.0.1:8000/v1 without a slash at its end.

    Raises ValueError for what is none, or would carry a key into logs and manifests.
    """
    parts = urlsplit(endpoint)
    is_base_url = parts.scheme in ("http", "https") and parts.hostname and not parts.query
    if not is_base_url or parts.username is not None:
        raise ValueError(
            f"endpoint {parts.hostname or endpoint!r}: expected a base URL such as "
            "http://127.0.0.1:8000/v1, without a user name, key or query in it"
        )
    return endpoint.rstrip("/")


def check_key_name(variable: str | None) -> None:
    """Raises ValueError for what no environment variable is called, without repeating it.

    It may be the key itself, pasted in the place of its variable's name.
    """
    if variable is not None and not _VARIABLE.fullmatch(variable):
        raise ValueError(
            "api_key_env is not the name of an environment variable (letters, digits and _). Put "
            "the key into a variable and give its name here, such as TEACHER_API_KEY"
        )


def api_key(variable: str | None, secrets: Mapping[str, str], section: str) -> str | None:
    """Returns the API key in the environment variable that a section of the recipe names, if any.

    Raises ValueError where it is not set, empty, or nothing that can be sent.
    """
    if variable is None:
        return None
    try:
        check_key_name(variable)
    except ValueError as error:
        raise ValueError(f"{section}.{error}") from error
    key = secrets.get(variable, "")
    if not key.strip():
        raise ValueError(f"{section}.api_key_env names {variable}, which is not set, or empty")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(
            f"{section}.api_key_env names {variable}, whose value holds characters that no HTTP "
            "header can carry, such as a line break"
        )
    return key


def unusable_api_keys(
    sections: Mapping[str, Mapping[str, object]], secrets: Mapping[str, str]
) -> list[str]:
    """Returns what is wrong with the keys that sections of endpoints name; empty when all is well.

    Sections are called as in the recipe (teacher, score, scorers.<group>, embedder).
    """
    messages = []
    for name, section in sections.items():
        variable = section.get("api_key_env")
        if variable is None or section.get("engine", "endpoint") != "endpoint":
            continue
        try:
            api_key(str(variable), secrets, name)
        except ValueError as error:
            messages.append(str(error))
    return messages
