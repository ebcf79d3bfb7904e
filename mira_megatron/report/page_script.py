"""The page's scripts and the data they read, embedded so that neither can become anything else.

Data is JSON in a block that no browser runs. Whatever could end the block or begin a comment in it
is written as an escape, so a record's text stays text. The scripts are known to the page's security
policy by their hashes: nothing else in the file may run.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import orjson
from markupsafe import Markup

from mira_megatron.report.rendering import visible

_SCRIPTS = ("what_if.js", "what_if_form.js", "record_browser.js")
# Outside of strings JSON has none of these, and inside of them an escape means the same.
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def page_script() -> tuple[Markup, str]:
    """Returns the text of the page's one script, and its source in the security policy."""
    folder = Path(__file__).parent
    text = "\n".join((folder / name).read_text() for name in _SCRIPTS)
    assert "</" not in text, "would end the script's element"
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"'sha256-{digest}'"


def embedded_json(value: object) -> Markup:
    """Returns a value as JSON for a data block; control and direction characters become signs."""
    text = orjson.dumps(_visible_throughout(value)).decode()
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)


def _visible_throughout(value: object) -> object:
    match value:
        case dict():
            return {str(visible(key)): _visible_throughout(each) for key, each in value.items()}
        case list() | tuple():
            return [_visible_throughout(each) for each in value]
        case _:
            return visible(value)
