"""Checks of what a training reads: the tokenizer, the token datasets, the blend of every arm."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.planned_trainings import PlannedTraining, planned_trainings
from mira_megatron.doctor.subject import Subject
from mira_megatron.json_objects import read_json_object
from mira_megatron.provenance.tokens_doctor import examine
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.tokenization.blend_files import read_blend
from mira_megatron.tokenization.index_file import read_index
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    check_one_vocabulary,
    read_token_dataset,
)

# A blend of more is verified only when asked for: its order is replayed, which takes minutes.
VERIFIED_TOKENS = 1_000_000_000
_ADDED = "added_tokens"
# What, beside the vocabulary, decides how a text is cut into tokens.
_CUTTING = ("merges", "normalizer", "pre_tokenizer")


def token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Returns the id of every token of a tokenizer.json, added ones included."""
    vocabulary = tokenizer["model"]["vocab"]
    if not isinstance(vocabulary, dict):  # Unigram: (token, score) by id
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in tokenizer.get(_ADDED, [])}}


def check_data(subject: Subject, *, verify_all: bool) -> list[Finding]:
    """Returns what is found of tokenizer, token datasets and blends."""
    training = next(
        (each for each in planned_trainings(subject.recipe) if each.stage == "midtrain"), None
    )
    findings: list[Finding] = []
    if training is not None and not subject.is_done("midtrain"):
        findings += _check_tokenizer(subject, training)
    findings += _check_datasets(subject, training)
    if "blend" in subject.stages and not subject.is_done("midtrain"):
        for arm in subject.recipe.mapping("arms"):
            findings += _check_arm(subject, arm, training, verify_all=verify_all)
    return findings


def _check_tokenizer(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    """Finds a tokenizer that is not the base model's, and an end of document that it lacks."""
    path = _tokenizer_path(subject)
    if path is None or not path.is_file():
        return
    content = read_json_object(path)
    assert content is not None, "it is a file"
    ids = token_ids(content)
    end = (subject.recipe.values.get("tokenize") or {}).get("eod_token")
    if end is not None and end not in ids:
        yield Finding(
            level=ERROR,
            what=f"it has no token {end!r}, which is to end documents",
            where=str(path),
            way_out="name one of its tokens in tokenize.eod_token",
        )
    theirs_path = None if training.base is None else training.base / layout.TOKENIZER_FILE
    theirs = None if theirs_path is None else read_json_object(theirs_path)
    if theirs is None:
        return
    others = token_ids(theirs)
    differing = [token for token, number in ids.items() if others.get(token) != number]
    if differing:
        token = min(differing, key=lambda each: ids[each])
        yield Finding(
            level=ERROR,
            what=f"{len(differing):,} tokens have other ids in {theirs_path}: {token!r} is "
            f"{ids[token]} here and {others.get(token, 'missing')} there",
            where=str(path),
            way_out="tokenise with the tokenizer of the model that is trained",
        )
    for part in _CUTTING:
        if _part(content, part) != _part(theirs, part):
            yield Finding(
                level=ERROR,
                what=f"its {part} is another than in {theirs_path}: the same text becomes other "
                "tokens",
                where=str(path),
                way_out="tokenise with the tokenizer of the model that is trained",
            )


def _part(tokenizer: Mapping[str, Any], name: str) -> Any:
    """Returns a part of a tokenizer.json; merges as pairs, which older files write as text."""
    if name != "merges":
        return tokenizer.get(name)
    merges = tokenizer["model"].get("merges") or []
    return [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in merges]


def _tokenizer_path(subject: Subject) -> Path | None:
    """Returns the tokenizer of the run, else the one that the recipe names."""
    own = subject.recipe.run_folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    if own.is_file():
        return own
    named = (subject.recipe.values.get("tokenize") or {}).get("tokenizer")
    if named is None:
        return None
    path = subject.recipe.path_of(str(named))
    return path / layout.TOKENIZER_FILE if path.is_dir() else path


def _check_datasets(subject: Subject, training: PlannedTraining | None) -> Iterator[Finding]:
    """Finds token datasets that one model cannot read, or not this one."""
    recipe = subject.recipe
    datasets, waiting = [], []
    if not {"tokenize", "adopt"} & set(subject.stages):
        return
    for source in sorted({*recipe_sources(recipe), *adopted_sources(recipe)}):
        folder = recipe.run_folder / layout.tokens(source)
        if (folder / layout.DATASET).is_file():
            datasets.append(read_token_dataset(folder))
        else:
            waiting.append(source)
    if waiting:
        yield Finding(
            level=UNKNOWN,
            what=f"vocabulary, end of document and token type of {', '.join(waiting)} are not "
            "known before tokenize or adopt",
            where=f"{recipe.run_folder}/tokens",
            way_out="run doctor again then",
        )
    if datasets:
        try:
            check_one_vocabulary(datasets)
        except ValueError as error:
            way_out = "tokenise them with one tokenizer"
            where = f"{recipe.run_folder}/tokens"
            yield Finding(level=ERROR, what=str(error), where=where, way_out=way_out)
    for dataset in datasets:
        yield from _check_dataset(subject, dataset, training)


def _check_dataset(
    subject: Subject, dataset: TokenDataset, training: PlannedTraining | None
) -> Iterator[Finding]:
    where = str(subject.recipe.run_folder / layout.tokens(dataset.source) / layout.DATASET)
    if training is not None and training.sizes is not None and training.config is not None:
        rows = training.sizes.vocab_size
        if dataset.vocab_size > rows:
            yield Finding(
                level=ERROR,
                what=f"its vocabulary has {dataset.vocab_size:,} ids, the model {rows:,} rows",
                where=where,
                way_out="tokenise with the tokenizer of the model that is trained",
            )
    end = _base_end(subject, training)
    if end is not None and end[1] != dataset.eod_id:
        yield Finding(
            level=ERROR,
            what=f"its documents end with {dataset.eod_id}, and {end[0]!r} of the base model is "
            f"{end[1]}",
            where=where,
            way_out="tokenise with the base model's tokenizer, or name its end of document",
        )
    for prefix in dataset.prefixes:
        try:
            index = read_index(prefix.path_prefix)
        except (ValueError, OSError) as error:
            way_out = "restore the pair, or tokenise anew"
            yield Finding(level=ERROR, what=str(error), where=where, way_out=way_out)
            continue
        if dataset.vocab_size > 2 ** (8 * index.dtype.itemsize):
            yield Finding(
                level=ERROR,
                what=f"its tokens are {index.dtype}, which holds no vocabulary of "
                f"{dataset.vocab_size:,}",
                where=f"{prefix.path_prefix}.idx",
                way_out="it is another dataset's: restore it, or tokenise anew",
            )


def _base_end(subject: Subject, training: PlannedTraining | None) -> tuple[str, int] | None:
    """Returns the end of document and its id in the tokenizer of the base that is trained."""
    end = (subject.recipe.values.get("tokenize") or {}).get("eod_token")
    if training is None or training.base is None or end is None:
        return None
    content = read_json_object(training.base / layout.TOKENIZER_FILE)
    number = None if content is None else token_ids(content).get(end)
    return None if number is None else (end, number)


def _check_arm(
    subject: Subject, arm: str, training: PlannedTraining | None, *, verify_all: bool
) -> Iterator[Finding]:
    run_folder = subject.recipe.run_folder
    folder = run_folder / layout.blend(arm)
    if not subject.is_done("blend", arm):
        yield Finding(
            level=UNKNOWN,
            what="what it reads is not known before blend",
            where=f"arm {arm}",
            way_out="run doctor again then",
        )
        return
    blend = read_blend(folder)
    # Bridge keeps its indices there, under a name made of what is trained.
    is_bridge = training is not None and training.config is not None
    cache_folder = run_folder / "bridge" / f"midtrain.{arm}" if is_bridge else None
    for found in examine(blend, cache_folder=cache_folder):
        yield replace(found, where=f"arm {arm}: {found.where}")
    batch = None if training is None else training.facts.global_batch_size
    if batch is not None and blend["num_train_samples"] < batch:
        yield Finding(
            level=ERROR,
            what=f"{blend['num_train_samples']:,} samples fill no batch of {batch:,}: no step "
            "would be made",
            where=str(folder / layout.BLEND),
            way_out="select more tokens, or choose a recipe with a smaller batch",
        )
    yield from _verified(subject, arm, blend, verify_all=verify_all)


def _verified(
    subject: Subject, arm: str, blend: Mapping[str, Any], *, verify_all: bool
) -> Iterator[Finding]:
    """Says whether `mira tokens verify` finds the blend to be what was selected."""
    num_tokens = sum(entry["num_tokens"] for entry in blend["entries"])
    if num_tokens > VERIFIED_TOKENS and not verify_all:
        yield Finding(
            level=WARNING,
            what=f"not verified here: replaying {num_tokens:,} tokens takes minutes",
            where=f"arm {arm}",
            way_out="give --verify, or run `mira tokens verify` once",
        )
        return
    recipe = subject.recipe
    try:  # it replays what Megatron draws, with Megatron's own code
        tool = importlib.import_module("mira_megatron.provenance.verify")
    except ModuleNotFoundError as error:
        yield Finding(
            level=UNKNOWN,
            what=f"not verified: {error}",
            where=f"arm {arm}",
            way_out="run `mira tokens verify` where megatron-core is installed",
        )
        return
    report = tool.verify(
        recipe.run_folder,
        [arm],
        seed=recipe.seed,
        sources=sorted({*recipe_sources(recipe), *adopted_sources(recipe)}),
    )
    for problem in report.problems:
        yield Finding(
            level=ERROR,
            what=f"{problem.what}; expected {problem.expected}",
            where=f"arm {arm}: {problem.split} {problem.name}".rstrip(),
            way_out="`mira tokens verify` says more; delete the blend and make it anew",
        )
    if report.ok:
        what = "the blend holds what was selected, each document as often as it was to be"
        yield Finding(level=INFO, what=what, where=f"arm {arm}")
