from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from mira_megatron.config import fingerprinted, load_recipe, typed
from mira_megatron.grouping.embedders import (
    EmbedderConfig,
    embed,
    embedder_fingerprint,
    recipe_embedder,
)

CONFIG = EmbedderConfig(engine="tfidf_svd", dimensions=8, max_chars=200)

ENGLISH = [
    "The garden was full of old roses, and the rain had washed the path.",
    "A letter came from the garden of the house by the old river.",
    "Rain fell on the roses of the house, and no letter came.",
]
CODE = [
    "def add(first, second):\n    return first + second",
    "def subtract(first, second):\n    return first - second",
    "def scale(values, factor):\n    return [value * factor for value in values]",
]
CHINESE = [
    "<html><body><p>这条河边的老房子里有很多玫瑰。</p></body></html>",
    "<html><body><p>雨水打湿了花园里的小路和玫瑰。</p></body></html>",
    "<html><body><p>一封信从河边的老房子寄来。</p></body></html>",
]


def test_vectors_have_length_one_and_blank_texts_are_zero() -> None:
    vectors = embed([ENGLISH[0], "", " \n", CODE[0]], CONFIG, seed=1)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 8)
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1, 0, 0, 1])


def test_nothing_but_blank_texts_needs_no_engine() -> None:
    assert embed(["", " "], CONFIG, seed=1).tolist() == [[0.0] * 8] * 2
    assert embed([], CONFIG, seed=1).shape == (0, 8)


@pytest.mark.parametrize(("kind", "others"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_texts_are_nearest_to_their_own_kind(kind: int, others: tuple[int, int]) -> None:
    texts = [*ENGLISH, *CODE, *CHINESE]
    cosines = (vectors := embed(texts, CONFIG, seed=1)) @ vectors.T
    own = cosines[3 * kind : 3 * kind + 3, 3 * kind : 3 * kind + 3]
    for other in others:
        assert own.min() > cosines[3 * kind : 3 * kind + 3, 3 * other : 3 * other + 3].max()


def test_vectors_do_not_depend_on_the_order_of_texts() -> None:
    texts = [f"record {number} {'x' * (number % 7)} {number**3}" for number in range(5000)]
    shuffled = random.Random(1).sample(texts, len(texts))
    vector_of = dict(zip(shuffled, embed(shuffled, CONFIG, seed=1), strict=True))
    for text, vector in zip(texts, embed(texts, CONFIG, seed=1), strict=True):
        assert vector.tobytes() == vector_of[text].tobytes()


def test_texts_are_cut_before_they_are_embedded() -> None:
    short = EmbedderConfig(engine="tfidf_svd", dimensions=4, max_chars=5)
    one, other = embed(["alpha beta", "alpha gamma"], short, seed=1)
    assert one.tolist() == other.tolist()


def test_numbers_are_one_when_folded() -> None:
    texts = ["12 of 40 functions have a docstring", "3 of 9 functions have a docstring", "no names"]
    folded = embed(texts, CONFIG, seed=1, fold_numbers=True)
    assert folded[0] @ folded[1] == pytest.approx(1.0)
    unfolded = embed(texts, CONFIG, seed=1)
    assert unfolded[0] @ unfolded[1] < 0.99


def test_settings_that_decide_vectors_are_fingerprinted() -> None:
    config = EmbedderConfig(
        engine="endpoint", dimensions=8, max_chars=9, model="m", endpoints=["http://a/v1"]
    )
    assert fingerprinted(config) == {
        "engine": "endpoint",
        "dimensions": 8,
        "max_chars": 9,
        "model": "m",
        "shortened_by_server": False,
    }


def test_embedder_key_in_the_place_of_its_name_is_refused_unseen() -> None:
    settings = {"engine": "endpoint", "model": "m", "endpoints": ["http://127.0.0.1:9/v1"]}
    values = {**settings, "dimensions": 8, "max_chars": 100, "api_key_env": "sk-live-0123"}
    with pytest.raises(ValueError, match="not the name of an environment variable") as error:
        typed(EmbedderConfig, values, where="recipe.yaml: embedder")
    assert "sk-live" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "word2vec"}, "engine='word2vec' must be one of tfidf_svd, endpoint"),
        ({"dimensions": 0}, "dimensions=0 must be above 0"),
        ({"model": "m"}, "engine=tfidf_svd takes no model"),
        ({"engine": "endpoint"}, "engine=endpoint needs model"),
        ({"engine": "endpoint", "model": "m"}, "engine=endpoint needs endpoints"),
        ({"endpoints": ["http://a/v1"]}, "endpoints is for engine=endpoint"),
        ({"max_retries": -1}, "max_retries=-1 must not be negative"),
        ({"dimension": 3}, "unknown key 'dimension'. Did you mean 'dimensions'"),
    ],
)
def test_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    given = {"engine": "tfidf_svd", "dimensions": 8, "max_chars": 100, **settings}
    with pytest.raises(ValueError, match="embedder") as error:
        typed(EmbedderConfig, given, where="recipe.yaml: embedder")
    assert message in str(error.value)


def test_embedder_model_folder_is_the_recipes_and_known_by_its_files(tmp_path: Path) -> None:
    model = tmp_path / "minilm"
    model.mkdir()
    (model / "weights").write_bytes(b"one")
    settings = {"engine": "sentence_transformers", "dimensions": 4, "max_chars": 10}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(orjson.dumps({"embedder": {**settings, "model": "minilm"}}))
    config = recipe_embedder(load_recipe(recipe))
    assert config.model == str(model)
    first = embedder_fingerprint(config)
    assert first["model"] == "minilm"
    (model / "weights").write_bytes(b"two")
    assert embedder_fingerprint(config)["model_files"] != first["model_files"]


def test_embedder_model_of_a_hub_is_known_by_its_name(tmp_path: Path) -> None:
    settings = {"engine": "sentence_transformers", "dimensions": 4, "max_chars": 10}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(orjson.dumps({"embedder": {**settings, "model": "org/minilm"}}))
    config = recipe_embedder(load_recipe(recipe))
    assert (config.model, embedder_fingerprint(config)["model"]) == ("org/minilm", "org/minilm")
