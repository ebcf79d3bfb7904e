from __future__ import annotations

import pytest

from mira_megatron.endpoints import api_key, base_url


def test_base_url_loses_the_slash_at_its_end() -> None:
    assert base_url("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a/v1", "http://me:sk-secret@a/v1", "http://a/v1?key=sk-secret"]
)
def test_base_url_of_another_form_is_refused_without_its_key(url: str) -> None:
    with pytest.raises(ValueError, match="expected a base URL") as error:
        base_url(url)
    assert "sk-secret" not in str(error.value)


def test_api_key_that_is_named_but_not_set_is_refused() -> None:
    assert api_key(None, {}, "teacher") is None
    assert api_key("KEY", {"KEY": "sk-secret"}, "teacher") == "sk-secret"
    with pytest.raises(ValueError, match="KEY, which is not set"):
        api_key("KEY", {"OTHER": "sk-secret"}, "teacher")
