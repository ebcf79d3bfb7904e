"""Charts as inline SVG: drawn by Vega, in the colours of the page, nothing but shapes and words.

Vega writes a document of its own, with a background, roles, classes and fonts. Here it is taken
apart, and only what this module names goes into the page: so that a figure follows the page's light
and dark colours, that no two figures share an id, and that a new version of the library cannot
bring along a script, a link or a colour that is right in one of the two only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from xml.etree import ElementTree

import altair as alt
import vl_convert
from markupsafe import Markup

_SHAPES = ("g", "line", "path", "text")
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_GEOMETRY = ("d", "transform", "x2", "y2")
_PAINTS = ("fill", "stroke")
_STYLES = (
    "font-size",
    "opacity",
    "stroke-dasharray",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-width",
    "text-anchor",
)
# The variables of style.css.j2, and the pattern of page.html.j2.
_PAINT = re.compile(r"none|var\(--[a-z]+\)|url\(#hatch\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}(e-\d+)?")
_WITH_TOOLTIP = ("bar", "point")  # of these marks the description is shown under a pointer


def drawn(
    layers: Iterable[alt.Chart],
    *,
    width: int,
    height: int,
    padding: Mapping[str, int],
    config: alt.Config,
) -> Markup:
    """Returns the shapes of a chart whose plotting area is width x height, without an <svg> around.

    The padding is the room for labels on each `side`, in the same unit. Equal charts give equal
    bytes on every machine: nothing is placed by the width of a text, which depends on the fonts.
    """
    chart = alt.layer(*layers).properties(
        width=width,
        height=height,
        padding=dict(padding),
        autosize=alt.AutoSizeParams(type="none"),
        config=config,
    )
    svg = vl_convert.vegalite_to_svg(
        chart.to_dict(),
        vl_version=".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]),
        allowed_base_urls=[],  # the data are in the chart: nothing may be fetched
    )
    background = f"{_NAMESPACE}rect"
    shapes = (part for part in ElementTree.fromstring(svg) if part.tag != background)
    return Markup("").join(
        Markup(ElementTree.tostring(shape, encoding="unicode")) for shape in _cleaned(shapes)
    )


def _cleaned(elements: Iterable[ElementTree.Element]) -> list[ElementTree.Element]:
    """Returns copies of what shows something, with no attribute but the named ones.

    A group that places or paints nothing is replaced by what is in it.
    """
    cleaned: list[ElementTree.Element] = []
    for element in elements:
        copy = _copy(element)
        if copy.tag != "g":
            cleaned += [copy] if _is_visible(copy) else []
        elif copy.attrib:
            cleaned += [copy] if len(copy) else []
        else:
            cleaned += copy
    return cleaned


def _copy(element: ElementTree.Element) -> ElementTree.Element:
    tag = element.tag.removeprefix(_NAMESPACE)
    if tag not in _SHAPES:
        raise ValueError(_unknown(f"<{tag}>", "shapes"))
    given = element.attrib
    kept = {name: _rounded(given[name]) for name in _GEOMETRY if name in given}
    if kept.get("transform") == "translate(0,0)":
        del kept["transform"]
    kept |= {name: given[name] for name in _STYLES if name in given}
    if kept.get("opacity") == "1":
        del kept["opacity"]
    for name in _PAINTS:
        if name in given:
            if not _PAINT.fullmatch(given[name]):
                raise ValueError(_unknown(f"{name}={given[name]}", "colours"))
            kept[name] = given[name]
    copy = ElementTree.Element(tag, kept)
    copy.text = element.text
    copy.extend(_cleaned(element))
    if given.get("aria-roledescription") in _WITH_TOOLTIP:
        ElementTree.SubElement(copy, "title").text = given["aria-label"]
    return copy


def _unknown(found: str, what: str) -> str:
    versions = " and ".join(f"{name} {version(name)}" for name in ("altair", "vl-convert-python"))
    return (
        f"{versions} draw a figure with {found}, which is none of the report's {what}. "
        "Install the versions of requirements/main.txt"
    )


def _is_visible(shape: ElementTree.Element) -> bool:
    """Vega draws every group's area, mostly without a colour, and labels that it left out."""
    has_paint = any(shape.get(name, "none") != "none" for name in _PAINTS)
    return has_paint and shape.get("opacity") != "0"


def _rounded(geometry: str) -> str:
    """Returns coordinates with at most two decimals: a hundredth of what a reader could see."""
    return _LONG_NUMBER.sub(lambda number: f"{round(float(number[0]), 2):g}", geometry)
