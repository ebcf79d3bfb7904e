from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distill_settings import with_distill
from tokenizers import Tokenizer

from mira_megatron.config import Recipe
from mira_megatron.distill import sft_data
from mira_megatron.distill.chatml import END, render
from mira_megatron.distill.scorer_tokenizer import train_tokenizer
from mira_megatron.manifest import Manifest
from mira_megatron.pipeline import stage_units
from mira_megatron.rubric.anchor_files import read_anchors, with_version, write_anchors
from mira_megatron.rubric.prompt_form import FULL, PromptForm
from mira_megatron.rubric.prompts import score_messages
from mira_megatron.rubric.replies import parse_reply
from mira_megatron.stage import Resources, Run, Unit, run_unit

pytest_plugins = ("labelled_recipes", "sft_samples")

Make = Callable[..., Recipe]

_BARE = PromptForm(prompt="bare", references=False, answers="compact")
_FULL = {"prompt": "full", "references": True, "answers": "full", "sequence_length": 8192}


def _unit(recipe: Recipe) -> Unit:
    (unit,) = sft_data.units(recipe)
    return unit


def _make(recipe: Recipe, workers: int = 1) -> tuple[Manifest, Path]:
    unit = _unit(recipe)
    manifest = run_unit(unit, Run(folder=recipe.run_folder), Resources(workers=workers))
    return manifest, recipe.run_folder / unit.folder


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _samples(folder: Path) -> dict[str, dict[str, Any]]:
    rows = _lines(folder / "training.jsonl") + _lines(folder / "validation.jsonl")
    samples = {row["record_id"]: row for row in rows}
    assert len(samples) == len(rows)
    return samples


def _table(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("part-*.parquet")))


def _ratings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    rows = _table(recipe.run_folder / "teacher_ratings/mira/notes").to_pylist()
    return {row["record_id"]: row for row in rows}


def _texts(recipe: Recipe) -> dict[str, str]:
    rows = _table(recipe.run_folder / "records/notes").to_pylist()
    return {row["record_id"]: row["text"] for row in rows}


def test_sft_data_bare_samples_are_the_record_and_the_teachers_scores(
    labelled: Callable[..., Recipe],
) -> None:
    recipe = labelled(max_record_tokens=512)
    manifest, folder = _make(recipe)
    anchors = read_anchors(recipe.run_folder / "anchors/mira/text-notes/anchors.jsonl")
    ratings, texts, samples = _ratings(recipe), _texts(recipe), _samples(folder)
    assert set(samples) == {key for key, row in ratings.items() if row["split"] == "distill"}
    assert (
        0
        < len(samples)
        < len(ratings)
        == manifest.counts.num_in + (manifest.counts.totals["held_back_for_reliability"])
    )
    for record_id, row in samples.items():
        prompt = render(score_messages("text", anchors, texts[record_id], _BARE))
        parsed = parse_reply(row["output"].removesuffix(END), [a.name for a in anchors], _BARE)
        assert (row["input"], row["source"]) == (prompt, "notes")
        assert row["output"].endswith(END)
        assert list(parsed.scores) == ratings[record_id]["scores"]


def test_sft_data_full_answers_are_the_teachers_whole(labelled: Callable[..., Recipe]) -> None:
    recipe = labelled(**_FULL)
    _, folder = _make(recipe)
    anchors = read_anchors(recipe.run_folder / "anchors/mira/text-notes/anchors.jsonl")
    ratings = _ratings(recipe)
    for record_id, row in _samples(folder).items():
        system, _ = score_messages("text", anchors, "", FULL)
        assert row["input"].startswith(f"<|im_start|>system\n{system['content']}{END}\n")
        parsed = parse_reply(row["output"].removesuffix(END), [a.name for a in anchors])
        for name in ("overall", "training_recommendation", "domain_tag", "brief", "status"):
            assert getattr(parsed, name) == pytest.approx(ratings[record_id][name])
        assert list(parsed.rationales) == ratings[record_id]["rationales"]
        assert list(parsed.scores) == ratings[record_id]["scores"]


def test_sft_data_is_the_same_with_any_number_of_workers(labelled: Callable[..., Recipe]) -> None:
    recipe = labelled()
    one, folder = _make(recipe)
    shutil.rmtree(folder)
    two, _ = _make(recipe, workers=2)
    assert [part.digest for part in one.parts] == [part.digest for part in two.parts]
    assert {part.path for part in one.parts} == {
        *("training.jsonl", "validation.jsonl", "dropped.jsonl", "lengths.json", "tokenizer.json")
    }


def test_sft_data_another_seed_gives_another_order_and_split(
    labelled: Callable[..., Recipe],
) -> None:
    recipe = labelled()
    _, folder = _make(recipe)
    first = [row["record_id"] for row in _lines(folder / "training.jsonl")]
    shutil.rmtree(folder)
    _make(replace(recipe, seed=8))
    second = [row["record_id"] for row in _lines(folder / "training.jsonl")]
    assert first != second
    assert first != sorted(first)


def test_sft_data_over_long_samples_are_listed_and_counted(labelled: Callable[..., Recipe]) -> None:
    recipe = labelled(max_record_tokens=4096)
    _, folder = _make(recipe)
    sizes = _lengths_of(_samples(folder), folder / "tokenizer.json")
    limit = sorted(sizes.values())[len(sizes) // 2]
    shutil.rmtree(folder)
    manifest, _ = _make(with_distill(recipe, max_record_tokens=4096, sequence_length=limit))
    too_long = {record_id for record_id, size in sizes.items() if size > limit}
    dropped = _lines(folder / "dropped.jsonl")
    assert {(row["record_id"], row["reason"]) for row in dropped} == {
        (record_id, "over_long") for record_id in too_long
    }
    assert dropped[0]["source"] == "notes"
    assert f"tokens, sequence_length={limit:,}" in dropped[0]["detail"]
    assert manifest.counts.dropped == {"over_long": len(too_long)}
    assert set(_samples(folder)) == set(sizes) - too_long


def _lengths_of(samples: dict[str, dict[str, Any]], tokenizer_path: Path) -> dict[str, int]:
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    return {
        record_id: sum(
            len(tokenizer.encode(row[name], add_special_tokens=False).ids)
            for name in ("input", "output")
        )
        for record_id, row in samples.items()
    }


def test_sft_data_lengths_report_is_about_what_is_in_the_files(
    labelled: Callable[..., Recipe], tmp_path: Path
) -> None:
    train_tokenizer(["a"], 512, tmp_path / "tokenizer.json")  # a token per byte: notes are cut
    _, folder = _make(labelled(base=str(tmp_path), train_vocab_size=None))
    report = json.loads((folder / "lengths.json").read_text())
    lengths = report["sources"]["notes"]
    sizes = _lengths_of(_samples(folder), folder / "tokenizer.json")
    assert lengths["longest_sample_tokens"] == max(sizes.values())
    assert lengths["num_training"] == len(_lines(folder / "training.jsonl"))
    assert lengths["num_validation"] == len(_lines(folder / "validation.jsonl"))
    cut = [row for row in _samples(folder).values() if "tokens left out" in row["input"]]
    assert lengths["shown_whole_fraction"] == round(1 - len(cut) / len(sizes), 4)
    assert 0 < len(cut) < len(sizes)
    assert report["sequence_length"] == 1024


def test_sft_data_trained_tokenizer_has_seen_nothing_that_is_held_back(
    labelled: Callable[..., Recipe],
) -> None:
    # The number's word stands in its own note only: "The 7th note says".
    recipe = labelled(train_vocab_size=4096)
    _, folder = _make(recipe)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ratings, texts = _ratings(recipe), _texts(recipe)
    marks = {record_id: text.split()[4] for record_id, text in texts.items()}
    # 10 stands in answers too.
    two_digits = {key: mark for key, mark in marks.items() if len(mark) == 4 and mark != "10th"}
    counts = {
        half: [
            len(tokenizer.encode(f" {mark}").ids)
            for key, mark in two_digits.items()
            if ratings[key]["split"] == half
        ]
        for half in ("distill", "reliability")
    }
    assert counts["distill"]
    assert counts["reliability"]
    assert min(counts["reliability"]) > max(counts["distill"])


def test_sft_data_base_tokenizer_is_taken_as_it_is(
    labelled: Callable[..., Recipe], chat_tokenizer_path: Path
) -> None:
    base = str(chat_tokenizer_path.parent)
    recipe = labelled(base=base, train_vocab_size=None)
    _, folder = _make(recipe)
    assert (folder / "tokenizer.json").read_bytes() == chat_tokenizer_path.read_bytes()


def test_sft_data_base_without_turns_is_refused_by_name(
    labelled: Callable[..., Recipe], tmp_path: Path, chat_tokenizer_path: Path
) -> None:
    content = json.loads(chat_tokenizer_path.read_text())
    content["added_tokens"] = content["added_tokens"][:2]
    (tmp_path / "base").mkdir()
    (tmp_path / "base/tokenizer.json").write_text(json.dumps(content))
    recipe = labelled(base=str(tmp_path / "base"), train_vocab_size=None)
    with pytest.raises(ValueError, match=r"base/tokenizer.json: <\|im_end\|> not among"):
        _make(recipe)


def test_sft_data_base_without_a_tokenizer_is_refused(
    labelled: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = labelled(base=str(tmp_path / "base"), train_vocab_size=None)
    with pytest.raises(FileNotFoundError, match=r"base/tokenizer.json: no such file"):
        sft_data.units(recipe)


def test_sft_data_labels_of_other_anchors_are_refused(
    labelled: Callable[..., Recipe], given_anchors_path: Path
) -> None:
    recipe = labelled()
    anchors = read_anchors(given_anchors_path)
    other = with_version("other", [replace(anchors[0], description="else"), *anchors[1:]])
    write_anchors(given_anchors_path, other)
    shutil.rmtree(recipe.run_folder / "anchors")
    _run_anchor_stage(recipe)
    message = rf"teacher_ratings/mira/notes: .*rubric_version {other[0].rubric_version}"
    with pytest.raises(ValueError, match=message):
        _make(recipe)


def _run_anchor_stage(recipe: Recipe) -> None:
    for unit in stage_units(recipe, "anchor"):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def test_sft_data_group_without_a_label_to_train_on_says_why(
    labelled: Callable[..., Recipe],
) -> None:
    with pytest.raises(ValueError, match=r"no label can be trained on \(left out: over_long \d+\)"):
        _make(labelled(sequence_length=64))


def test_sft_data_group_that_is_all_held_back_says_so(labelled: Callable[..., Recipe]) -> None:
    with pytest.raises(ValueError, match=r"no label can .* none, there are none.*records_per_sou"):
        _make(labelled(reliability_fraction=0.9999))


def test_sft_data_without_a_validation_sample_is_refused(labelled: Callable[..., Recipe]) -> None:
    with pytest.raises(ValueError, match="on the validation side of validation_fraction=1e-09"):
        _make(labelled(validation_fraction=1e-9))


def test_sft_data_units_need_a_section_and_are_one_per_group(judged_recipe: Make) -> None:
    recipe = judged_recipe(stages=())
    assert sft_data.units(recipe) == []
    unit = _unit(with_distill(recipe))
    assert (unit.folder, unit.name) == ("sft/mira/text-notes", "text-notes")
    assert unit.config["prompt_key"] != _unit(with_distill(recipe, **_FULL)).config["prompt_key"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"base": None, "train_vocab_size": None}, "give base .* or train_vocab_size"),
        ({"validation_fraction": 0}, r"validation_fraction=0.0 must be in \(0, 1\)"),
        ({"answers": "short"}, "answers='short' must be one of full, compact"),
        (
            {"answers": "digits"},
            "answers='digits' must be one of full, compact, which",
        ),
        ({"max_tokens": 9}, "unknown key 'max_tokens'"),
    ],
)
def test_sft_data_setting_that_cannot_be_is_refused(
    judged_recipe: Make, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"recipe.yaml: distill.*{message}"):
        sft_data.units(with_distill(judged_recipe(stages=()), **section))
