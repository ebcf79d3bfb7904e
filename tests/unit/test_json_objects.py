from __future__ import annotations

from pathlib import Path

import pytest

from mira_megatron.json_objects import read_json_object


def test_object_is_read_and_a_missing_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": [1]}')
    assert read_json_object(tmp_path / "config.json") == {"a": [1]}
    assert read_json_object(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("text", "told"), [(b"{", "not JSON"), (b"\xff", "not JSON"), (b"[1]", "not a JSON object")]
)
def test_file_that_holds_no_object_is_named(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=rf"config\.json: {told}"):
        read_json_object(tmp_path / "config.json")
