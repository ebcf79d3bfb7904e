"""The text of a record, from the view that a judge is shown of it whole."""

from __future__ import annotations

import orjson

from mira_megatron.corpus.renderers import render


def trained_text(family: str, view_text: str) -> str:
    """Returns the text of a record whose view is its payload, as it is trained on."""
    return view_text if family == "text" else render(family, orjson.loads(view_text)).text
