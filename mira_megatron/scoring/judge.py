"""A judge as a unit of work needs it: its settings, and the files they name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.rubric import rule_judge
from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.rubric.prompt_form import FULL, PromptForm
from mira_megatron.scoring.judge_config import LOCAL_ENGINES, JudgeConfig
from mira_megatron.scoring.prompt_losses import PromptLosses
from mira_megatron.shards import file_digest

# Units that have an answer mode say it themselves; the others are for models on this machine.
_LOCAL_FIELDS = ("dtype", "max_model_len")
_MODEL_FILES = (".json", ".safetensors", ".jinja", ".model", ".txt")  # SentencePiece, WordPiece


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Who is asked, and how."""

    config: JudgeConfig
    seed: int
    tokenizer: Path | None
    answers: Path  # the folder of the answer store
    form: PromptForm = FULL
    model_folder: Path | None = None
    weights: str | None = None  # digest of a model that the recipe made itself
    losses: PromptLosses | None = None  # asked for in place of an answer, of windows of tokens

    @property
    def model(self) -> str:
        """Returns the name that rows carry."""
        if self.config.engine == "rule_judge":
            return rule_judge.MODEL_NAME
        if self.config.model is not None:
            return self.config.model
        return "distilled" if self.model_folder is None else self.model_folder.name

    @property
    def is_local(self) -> bool:
        """Returns whether the model is run by this process."""
        return self.config.engine in LOCAL_ENGINES

    @property
    def is_expected(self) -> bool:
        """Returns whether scores are means by probability."""
        return self.config.answer_mode == "expected"

    @property
    def answer_regex(self) -> str | None:
        """Returns what guided decoding holds answers to; None where they are free."""
        return SCORES_REGEX if self.config.answer_mode == "scores_only" else None

    def asked_in(self, form: PromptForm) -> Judge:
        """Returns the judge asked in a form, as far as its answer mode has none of its own."""
        is_digits = self.config.answer_mode == "scores_only"
        return replace(self, form=replace(form, answers="digits") if is_digits else form)

    @property
    def sampling(self) -> tuple[object, ...]:
        """Returns what an answer depends on besides model and messages; nothing of rules."""
        if self.config.engine == "rule_judge":
            return ()
        config = self.config
        asked_with = (
            config.temperature,
            config.top_p,
            config.max_tokens,
            config.request_fields,
            self.seed,
        )
        return asked_with if self.weights is None else (*asked_with, self.weights)


def make_judge(recipe: Recipe, config: JudgeConfig) -> Judge:
    """Returns the judge of a recipe's section; FileNotFoundError where its tokenizer is not."""
    answers = config.answers_folder
    judge = Judge(
        config=config,
        seed=recipe.seed,
        tokenizer=None if config.tokenizer is None else _tokenizer(recipe, config.tokenizer),
        answers=recipe.run_folder / layout.ANSWERS if answers is None else recipe.path_of(answers),
        model_folder=None if config.model_path is None else recipe.path_of(config.model_path),
    )
    return judge.asked_in(FULL)


def judge_fingerprint(judge: Judge) -> dict[str, Any]:
    """Returns what decides a judge's answers, for a unit's configuration.

    Without the answer mode: units that have one say it.
    """
    fields = fingerprinted(judge.config)
    del fields["answer_mode"]
    if not judge.is_local:
        for name in _LOCAL_FIELDS:
            del fields[name]
    return {
        **fields,
        "model": judge.model,
        "tokenizer": None if judge.tokenizer is None else file_digest(judge.tokenizer),
        "seed": judge.seed if judge.sampling else None,
    }


def model_files(folder: Path) -> dict[str, str]:
    """Returns the digest of every file of a model that decides what it answers, by name."""
    paths = [path for suffix in _MODEL_FILES for path in sorted(folder.glob(f"*{suffix}"))]
    if not paths:
        raise FileNotFoundError(
            f"{folder}: no model is here. Expected config.json, safetensors and a tokenizer; "
            "correct model_path."
        )
    return {f"model/{path.name}": _digest(path, path.stat().st_mtime_ns) for path in paths}


@lru_cache(maxsize=1024)  # every source of a group asks
def _digest(path: Path, modified_ns: int) -> str:
    return file_digest(path)


def _tokenizer(recipe: Recipe, name: str) -> Path:
    path = recipe.path_of(name)
    file = path / layout.TOKENIZER_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file. A judge with max_record_tokens needs its own tokenizer.json: a "
            "record's tokens are counted as it counts them."
        )
    return file
