from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mira_megatron.config import load_recipe
from mira_megatron.launchers.job_file import JobFile, Server, recipe_digest

SERVER = Server(commands=(("vllm", "serve", "{head}"),), health_urls=("http://127.0.0.1:8000/h",))
TEXT = st.text(st.characters(blacklist_categories=["Cs"]))


def job(folder: Path, **values: Any) -> JobFile:
    given = {
        **{"name": "score", "stage": "score", "kind": "stage", "recipe": folder / "recipe.yaml"},
        **{"overrides": (), "recipe_digest": "a" * 64, "run_folder": folder, "workers": 2},
    }
    return JobFile(**{**given, **values})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    overrides=st.lists(TEXT).map(tuple),
    only=st.none() | TEXT.filter(bool),
    words=st.lists(st.lists(TEXT, min_size=1).map(tuple), min_size=1).map(tuple),
    number=st.integers(1, 1 << 40),
    is_served=st.booleans(),
)
def test_job_file_read_is_the_one_written(
    tmp_path: Path,
    overrides: tuple[str, ...],
    only: str | None,
    words: tuple[tuple[str, ...], ...],
    number: int,
    is_served: bool,
) -> None:
    server = replace(SERVER, commands=words, ready_seconds=number) if is_served else None
    kind = "serve" if is_served else "stage"
    values = {"overrides": overrides, "only": only, "workers": number, "max_failures": number}
    written = job(tmp_path, kind=kind, server=server, shared=not is_served, **values)
    assert JobFile.read(written.write()) == written


def test_job_file_lies_in_the_folder_of_its_job(tmp_path: Path) -> None:
    assert job(tmp_path, name="score-rest").write() == tmp_path / "jobs/score-rest/job.json"


def changed(path: Path, **values: Any) -> Path:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))
    return path


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"schema_version": 2}, "schema_version=2 must be 1"),
        ({"worker": 2}, "Did you mean 'workers'"),
        ({"workers": "2"}, "workers='2' must be of type int"),
        ({"workers": True}, "workers=True"),
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"shared": 1}, "shared=1 must be of type bool"),
        ({"kind": "stages"}, "kind='stages' must be one of stage, train, serve"),
        ({"kind": "serve"}, "a job of kind serve has a server"),
        ({"kind": "train", "shared": True}, "shared: only a job of kind stage"),
        ({"overrides": "seed=1"}, "overrides='seed=1' must be a list of words"),
        ({"overrides": [1]}, "must be a list of words"),
        ({"recipe": "recipe.yaml"}, "recipe='recipe.yaml' must be an absolute path"),
        ({"run_folder": "run"}, "run_folder='run' must be an absolute path"),
        ({"recipe_digest": "A" * 64}, "must be 64 hex digits"),
        ({"name": "../score"}, "name='../score' must be lower-case"),
        ({"only": ""}, "only must name a unit"),
        ({"server": []}, "server: expected a mapping"),
        ({"server": {"commands": [[]], "health_urls": ["http://a/"]}}, "at least one word"),
        ({"server": {"commands": [["a"]], "health_urls": ["file:///a"]}}, "an http address"),
        ({"server": {"commands": ["a b"], "health_urls": []}}, "commands='a b' must be a list"),
    ],
)
def test_job_file_that_was_edited_wrongly_is_refused_by_name(
    tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    path = changed(job(tmp_path).write(), **values)
    with pytest.raises(ValueError, match=r"job\.json") as refused:
        JobFile.read(path)
    assert told in str(refused.value)


def test_job_file_that_lacks_a_key_or_is_no_json_is_refused(tmp_path: Path) -> None:
    path = job(tmp_path).write()
    content = json.loads(path.read_text())
    del content["only"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="needs only"):
        JobFile.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        JobFile.read(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="mira submit"):
        JobFile.read(path)


def test_recipe_digest_tells_contents_apart_and_not_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seed: 1\ningest: {records_per_part: 5, max_bad_fraction: 0.5}\n")
    second.write_text("# the same\ningest: {max_bad_fraction: 0.5, records_per_part: 5}\nseed: 1\n")
    assert recipe_digest(load_recipe(first)) == recipe_digest(load_recipe(second))
    assert recipe_digest(load_recipe(first)) != recipe_digest(load_recipe(first, ["seed=2"]))
