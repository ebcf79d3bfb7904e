"""What every client of an OpenAI-compatible endpoint checks before it sends anything."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit


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


def api_key(variable: str | None, secrets: Mapping[str, str], section: str) -> str | None:
    """Returns the API key in the environment variable that a section of the recipe names, if any.

    Raises ValueError where it is not set.
    """
    if variable is None:
        return None
    if variable not in secrets:
        raise ValueError(f"{section}.api_key_env names {variable}, which is not set")
    return secrets[variable]
