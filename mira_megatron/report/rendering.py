"""The template engine of the page, set so that nothing a record says can become markup."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mira_megatron.written_numbers import decimal, grouped, percent

_FOLDER = Path(__file__).parent
_C0_PICTURES = 0x2400  # U+2400 … show the control characters U+0000 … one by one
_DELETE_PICTURE = 0x2421
# Direction overrides, invisible characters and tags: with them a text can look unlike what it is.
_DECEPTIVE = (
    *range(0x80, 0xA0),
    0x061C,
    0x200B,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
)
_VISIBLE: Mapping[int, int | str] = {
    **{code: _C0_PICTURES + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: _DELETE_PICTURE,
    **{code: f"[U+{code:04X}]" for code in _DECEPTIVE},
}


def visible(value: object) -> object:
    """Returns text with control and direction characters replaced by visible signs.

    Anything else, markup of the template itself included, comes back unchanged.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return value.translate(_VISIBLE)


def render(template: str, context: Mapping[str, object], folder: Path = _FOLDER) -> str:
    """Returns a template filled in; every value is made visible, then escaped.

    It lies in `folder`, and may include those of this one, the style among them.
    """
    return _environment(folder).get_template(template).render(context)


@cache
def _environment(folder: Path) -> Environment:
    """Returns the engine; made once, because compiling the templates takes longer than a page."""
    environment = Environment(
        loader=FileSystemLoader([folder, _FOLDER]),
        autoescape=True,  # by name it would be off: the templates end in .j2
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({"grouped": grouped, "decimal": decimal})
    environment.globals.update({"percent": percent})
    return environment
