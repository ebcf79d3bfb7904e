from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mira_megatron.config import fingerprinted, load_recipe, typed


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    budget_tokens: int
    fraction: float = 0.5
    timeout_seconds: int | None = field(default=None, metadata={"execution": True})

    def __post_init__(self) -> None:
        if self.fraction > 1:
            raise ValueError(f"fraction={self.fraction} must be at most 1")


def write_recipe(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(text)
    return path


def test_typed_accepts_an_integral_float_for_a_whole_number() -> None:
    assert typed(Section, {"budget_tokens": 25e9}, where="x").budget_tokens == 25_000_000_000


def test_typed_refuses_a_fractional_whole_number() -> None:
    with pytest.raises(ValueError, match=r"x\.budget_tokens=2\.5 must be a whole number"):
        typed(Section, {"budget_tokens": 2.5}, where="x")


def test_typed_names_the_nearest_key() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'budget_token'.*'budget_tokens'"):
        typed(Section, {"budget_token": 1}, where="x")


def test_typed_says_where_a_check_failed() -> None:
    with pytest.raises(ValueError, match=r"my\.yaml: select: fraction=2\.0 must be at most 1"):
        typed(Section, {"budget_tokens": 1, "fraction": 2}, where="my.yaml: select")


def test_typed_names_a_missing_key() -> None:
    with pytest.raises(ValueError, match="budget_tokens"):
        typed(Section, {}, where="x")


def test_fingerprint_leaves_execution_settings_out() -> None:
    config = Section(budget_tokens=1, timeout_seconds=9)
    assert fingerprinted(config) == {"budget_tokens": 1, "fraction": 0.5}


def test_recipe_overrides_reach_into_sections_and_descriptors(tmp_path: Path) -> None:
    (tmp_path / "wiki.yaml").write_text("format: jsonl\nfamily: text\n")
    path = write_recipe(tmp_path, "seed: 1\nsources: {wiki: wiki.yaml}\nselect: {a: 1}\n")
    words = ["select.budget_tokens=25e9", "sources.wiki.max_records=3", "seed=2"]
    recipe = load_recipe(path, words)
    assert recipe.seed == 2
    assert recipe.values["select"] == {"a": 1, "budget_tokens": 25e9}
    assert recipe.values["sources"]["wiki"]["max_records"] == 3
    assert recipe.values["sources"]["wiki"]["folder"] == str(tmp_path)


def test_recipe_with_an_unknown_section_names_the_nearest(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "selct: {}\n")
    with pytest.raises(ValueError, match=r"my\.yaml: unknown section 'selct'.*'select'"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["../up", "a b", "a.b", "$(x)", "", "-a"])
def test_recipe_refuses_names_that_are_no_folder(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(write_recipe(tmp_path, f"arms: {{{name!r}: {{score: a}}}}\n"))
    with pytest.raises(ValueError, match="is no name"):
        recipe.mapping("arms")


def test_recipe_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml: no such file"):
        load_recipe(tmp_path / "none.yaml")


def test_recipe_that_is_no_yaml_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"my\.yaml: not YAML"):
        load_recipe(write_recipe(tmp_path, "a: [1\n"))


def test_override_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected key=value"):
        load_recipe(write_recipe(tmp_path, "seed: 1\n"), ["seed"])
