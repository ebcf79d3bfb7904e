from __future__ import annotations

import pytest

from mira_megatron.endpoints import api_key, base_url, unusable_api_keys


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


@pytest.mark.parametrize("value", ["", "  "])
def test_api_key_that_is_empty_is_as_good_as_not_set(value: str) -> None:
    with pytest.raises(ValueError, match="KEY, which is not set, or empty"):
        api_key("KEY", {"KEY": value}, "teacher")


def test_api_key_that_no_header_can_carry_is_refused_by_its_variable_only() -> None:
    with pytest.raises(ValueError, match=r"teacher\.api_key_env names KEY, whose value") as error:
        api_key("KEY", {"KEY": "sk-secret\n"}, "teacher")
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize("pasted", ["sk-secret-1", "", "1KEY", "KEY\n", "schlüssel"])
def test_api_key_in_the_place_of_its_name_is_refused_unseen(pasted: str) -> None:
    message = r"score\.api_key_env is not the name of an environment variable"
    with pytest.raises(ValueError, match=message) as error:
        api_key(pasted, {pasted: "x"}, "score")
    assert not pasted or pasted not in str(error.value)


def test_unusable_api_keys_names_each_section_whose_key_is_missing() -> None:
    sections: dict[str, dict[str, object]] = {
        "teacher": {"engine": "endpoint", "api_key_env": "GONE"},
        "score": {"engine": "rule_judge", "api_key_env": "GONE"},
        "embedder": {"engine": "endpoint"},
        "scorers.code": {"api_key_env": "THERE"},
    }
    assert unusable_api_keys(sections, {"THERE": "sk-secret"}) == [
        "teacher.api_key_env names GONE, which is not set, or empty"
    ]
