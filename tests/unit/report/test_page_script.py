from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import orjson
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.report.page_script import embedded_json, page_script


class Script(HTMLParser):
    """What a parser of HTML takes for the content of the first script element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.content = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.content += data if self.tags == ["script"] else ""


def embedded(value: object) -> Script:
    return Script(f"<script type='application/json'>{embedded_json(value)}</script><p>")


@given(st.text(alphabet=st.sampled_from("</script!-> &\"'\\\u2028\u2029ab\n]")))
def test_any_text_survives_a_data_block(text: str) -> None:
    found = embedded({"text": text})
    assert found.tags == ["script", "p"]
    assert orjson.loads(found.content) == {"text": text}


def test_data_block_holds_nothing_that_html_or_scripts_know() -> None:
    text = str(embedded_json(["</script><!--<script>&\u2028\u2029"]))
    assert re.findall("[<>&\u2028\u2029]", text) == []


def test_data_block_shows_control_and_direction_characters_as_signs() -> None:
    value = {"text": "a\x00\u202eb", "list": [("\x1b",)], "number": 1.5, "none": None}
    assert orjson.loads(str(embedded_json(value))) == {
        "text": "a\u2400[U+202E]b",
        "list": [["\u241b"]],
        "number": 1.5,
        "none": None,
    }


def test_script_is_known_to_the_policy_by_its_hash() -> None:
    text, source = page_script()
    digest = base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()
    assert source == f"'sha256-{digest}'"
    assert "innerHTML" not in text
    assert re.findall(r"\beval\b|Function\(|document\.write|fetch\(|XMLHttp", text) == []
