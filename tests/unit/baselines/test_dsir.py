from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from baseline_runs import recipe_over, run_baselines, scores_of
from data_selection import HashedNgramDSIR

from mira_megatron.baselines.dsir import TOO_SHORT, gumbel_of, log_ratio
from mira_megatron.baselines.hashed_grams import HashedGrams

CODE = [f"def f{n}(x):\n    return x + {n}  # adds {n} to x\n" * (n + 1) for n in range(9)]
PROSE = [f"The {n} cat sat on the mat, and {n} dogs barked at it. " * (n + 1) for n in range(7)]
TARGET = ["def g(y):\n    return y * 2\n", "class A:\n    pass\n"]
ALL_LONG = {"min_words": 0, "top_k": True}


def package_weights(folder: Path) -> Any:
    """Returns the package's weights of CODE and PROSE towards TARGET."""
    for name, texts in (("raw", CODE + PROSE), ("target", TARGET)):
        lines = (orjson.dumps({"text": text}).decode() for text in texts)
        (folder / f"{name}.txt").write_text("\n".join(lines))
    dsir = HashedNgramDSIR(
        [str(folder / "raw.txt")], [str(folder / "target.txt")], str(folder / "cache"), num_proc=1
    )
    dsir.fit_importance_estimator(num_tokens_to_fit="all")
    dsir.compute_importance_weights()
    return np.load(folder / "cache" / "log_importance_weights" / "0.npy")


def test_weights_are_those_of_the_package_bit_for_bit(tmp_path: Path) -> None:
    theirs = package_weights(tmp_path)
    grams = HashedGrams(10_000)
    raw, target = (np.sum(list(grams.counts(texts)), axis=0) for texts in (CODE + PROSE, TARGET))
    ratio = log_ratio(raw, target)
    ours = [float(np.dot(ratio, counts)) for counts in grams.counts(CODE + PROSE)]
    assert [weight.hex() for weight in ours] == [float(weight).hex() for weight in theirs]


@pytest.mark.parametrize("workers", [1, 2])
def test_stage_scores_every_record_with_the_packages_weight(tmp_path: Path, workers: int) -> None:
    target = tmp_path / "target.jsonl"
    target.write_bytes(b"\n".join(orjson.dumps({"body": text}) for text in TARGET))
    descriptor = {
        "format": "jsonl",
        "family": "text",
        "paths": [str(target)],
        "fields": {"text": "body"},
    }
    baselines = {"dsir": {"method": "dsir", "targets": {"t": descriptor}, **ALL_LONG}}
    recipe = recipe_over(tmp_path, {"code": CODE, "prose": PROSE}, baselines)
    run_baselines(recipe, workers)
    expected = dict(zip(CODE + PROSE, package_weights(tmp_path), strict=True))
    found = scores_of(recipe, "dsir", "code") | scores_of(recipe, "dsir", "prose")
    assert {text: score for text, (score, _) in found.items()} == {
        text: float(np.float32(weight)) for text, weight in expected.items()
    }


def test_short_record_has_no_score_and_says_why(tmp_path: Path) -> None:
    # The package's count of words: words and pairs are 2W - 1.
    nums = [(counts.sum() + 1) // 2 for counts in HashedGrams(10_000).counts(CODE)]
    settings = {"method": "dsir", "target_sources": ["code"], "min_words": int(nums[4])}
    recipe = recipe_over(tmp_path, {"code": CODE}, {"dsir": settings})
    run_baselines(recipe)
    found = scores_of(recipe, "dsir", "code")
    for number, text in enumerate(CODE):
        score, reason = found[text]
        assert (score is None, reason) == (number < 4, TOO_SHORT if number < 4 else None)


def test_noise_is_gumbel_and_belongs_to_the_record() -> None:
    names = [f"record-{number}" for number in range(20_000)]
    noise = gumbel_of(names, "7:dsir")
    assert noise.mean() == pytest.approx(0.5772, abs=0.03)  # Euler's constant; error of mean 0.009
    assert noise.var() == pytest.approx(np.pi**2 / 6, rel=0.05)
    np.testing.assert_array_equal(gumbel_of(names[::-1], "7:dsir"), noise[::-1])
    assert (gumbel_of(names, "8:dsir") != noise).all()


def test_source_of_which_nothing_is_sampled_is_weighed_by_the_others(tmp_path: Path) -> None:
    settings = {"method": "dsir", "target_sources": ["code"], "fit_fraction": 0.3, **ALL_LONG}
    texts = {"code": CODE * 3, "single": ["one record alone"]}
    recipe = recipe_over(tmp_path, texts, {"dsir": settings})
    recipe = replace(recipe, seed=4)  # its sample does not hold the single record
    run_baselines(recipe)
    assert not np.load(recipe.run_folder / "baselines/dsir/counts/single/counts.npy").any()
    assert scores_of(recipe, "dsir", "single")["one record alone"][0] is not None


def test_sample_without_a_record_is_refused(tmp_path: Path) -> None:
    settings = {"method": "dsir", "target_sources": ["code"], "fit_fraction": 1e-9, **ALL_LONG}
    with pytest.raises(ValueError, match="no words were counted in the corpus"):
        run_baselines(recipe_over(tmp_path, {"code": CODE}, {"dsir": settings}))


def test_chunks_take_the_length_out_of_the_weight(tmp_path: Path) -> None:
    short, long = "alpha beta gamma delta " * 32, "alpha beta gamma delta " * 320
    settings = {"method": "dsir", "unit": "chunk", "target_sources": ["t"], **ALL_LONG}
    texts = {"t": ["alpha beta", "omega"], "raw": [short, long, "omega " * 300]}
    recipe = recipe_over(tmp_path, texts, {"dsir": settings})
    run_baselines(recipe)
    found = scores_of(recipe, "dsir", "raw")
    assert found[short][0] == pytest.approx(found[long][0], rel=1e-6)


def test_fit_fraction_counts_a_sample_that_is_the_same_again(tmp_path: Path) -> None:
    texts = [f"word{number}" for number in range(400)]
    counted = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        settings = {
            "method": "dsir",
            "target_sources": ["raw"],
            "fit_fraction": 0.25,
            "min_words": 0,
        }
        recipe = recipe_over(folder, {"raw": texts}, {"dsir": settings})
        run_baselines(recipe)
        counted.append(np.load(recipe.run_folder / "baselines/dsir/counts/raw/counts.npy"))
    np.testing.assert_array_equal(*counted)
    assert 60 < counted[0].sum() < 140


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_sources": ["cod"]}, "no source 'cod'. Did you mean 'code'?"),
        ({}, "needs a target"),
        ({"target_sources": ["code"], "unit": "word"}, "unit='word' must be one of"),
        ({"target_sources": ["code"], "fit_fraction": 0}, "fit_fraction=0"),
        ({"targets": {"t": "path"}}, "targets.t: 'path', expected a descriptor"),
    ],
)
def test_settings_that_are_wrong_are_named(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    recipe = recipe_over(tmp_path, {"code": CODE}, {"dsir": {"method": "dsir", **settings}})
    with pytest.raises(ValueError, match="dsir") as refused:
        run_baselines(recipe)
    assert message in str(refused.value)


def test_target_with_degraded_copies_is_refused(tmp_path: Path) -> None:
    descriptor = {
        "format": "jsonl",
        "family": "text",
        "paths": ["target.jsonl"],
        "fields": {"text": "body"},
        "degraded_copies": 1,
        "degradations": ["shuffled"],
    }
    settings = {"method": "dsir", "targets": {"t": descriptor}}
    recipe = recipe_over(tmp_path, {"code": CODE}, {"dsir": settings})
    with pytest.raises(ValueError, match=r"targets\.t: degraded_copies=1\.0"):
        run_baselines(recipe)


def test_target_with_a_broken_row_is_refused_by_line(tmp_path: Path) -> None:
    target = tmp_path / "target.jsonl"
    target.write_text('{"body": "fine"}\n{"body": ')
    fields = {"text": "body"}
    descriptor = {"format": "jsonl", "family": "text", "paths": [str(target)], "fields": fields}
    settings = {"method": "dsir", "targets": {"t": descriptor}}
    recipe = recipe_over(tmp_path, {"code": CODE}, {"dsir": settings})
    with pytest.raises(ValueError, match=r"target\.jsonl:2: .* must be whole"):
        run_baselines(recipe)
