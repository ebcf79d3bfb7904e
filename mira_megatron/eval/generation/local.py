"""Answers of a model that is loaded here: by transformers, or by vLLM without a server.

The engines are the scorers' own (scoring/local_engines.py). Answers are kept batch by batch, so a
kill loses one batch; which answers share a batch changes none of them. A prompt without room for an
answer as long as its benchmark allows is one without a text, as an endpoint has it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mira_megatron.eval.answers.stop_words import cut_at_stop
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.generation.asking import generation_of
from mira_megatron.eval.generation.generations import GenerationFile
from mira_megatron.eval.generation.planned import Planned
from mira_megatron.eval.generation.served import Served
from mira_megatron.json_objects import read_json_object
from mira_megatron.progress import Tracker, track
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.generation import Engine, Generated, LocalModel, Prompt, fitting_ids
from mira_megatron.scoring.local_engines import load_engine

logger = logging.getLogger(__name__)


class LocalAnswerer:
    """A Hugging Face folder, loaded when the first answer is needed.

    Raises ValueError for a folder that says no length of its context, where none is given.
    """

    def __init__(self, name: str, engine: str, model: LocalModel) -> None:
        self.model = name
        self._engine_name = engine
        length = model.max_model_len or _context_tokens(model.folder)
        self._settings = replace(model, max_model_len=length)
        self._engine: Engine | None = None

    def served(self) -> list[Served]:
        """Returns the engine, and the context that it is given."""
        length = self._settings.max_model_len
        return [
            Served(endpoint=self._engine_name, model=self.model, root=None, max_model_len=length)
        ]

    def generate(
        self, planned: Sequence[Planned], file: GenerationFile, *, title: str, num_done: int
    ) -> None:
        """Generates and writes every planned answer; `num_done` others were before.

        Raises ValueError where the model cannot be loaded, or is to chat and has no template.
        """
        engine = self._loaded()
        with track(title, num_done + len(planned), num_done=num_done) as tracker:
            asked: list[tuple[Planned, Prompt]] = []
            for each in planned:
                prompt = _prompt(engine, each)
                if isinstance(prompt, Prompt):
                    asked.append((each, prompt))
                else:
                    _keep(file, tracker, each, prompt)
            for numbers in engine.batches([prompt for _, prompt in asked]):
                batch = [asked[number] for number in numbers]
                generated = engine.generate([prompt for _, prompt in batch], None, None)
                for (each, prompt), one in zip(batch, generated, strict=True):
                    _keep(file, tracker, each, _answer(engine, each, prompt, one))

    def close(self) -> None:
        """Frees the model's memory; the next unit's model may need it."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _loaded(self) -> Engine:
        if self._engine is None:
            logger.info("%s loads %s", self._engine_name, self._settings.folder)
            self._engine = load_engine(self._engine_name, self._settings)
        return self._engine


def _context_tokens(folder: Path) -> int:
    path = folder / "config.json"
    length = (read_json_object(path) or {}).get("max_position_embeddings")
    if type(length) is not int or length < 1:
        raise ValueError(
            f"{path}: max_position_embeddings is {length!r}, so the length of the model's context "
            "is not known. Give the folder of a Hugging Face model, or eval.max_model_len"
        )
    return length


def _prompt(engine: Engine, planned: Planned) -> Prompt | Answer:
    """Returns what to ask, or why it cannot be asked."""
    text, is_chat = planned.prompt.text, planned.style is Style.CHAT
    if is_chat:
        text = _rendered(engine, planned)
    ids = fitting_ids(
        planned.task_id,
        engine,
        text,
        least_room=planned.prompt.max_tokens,
        has_special=not is_chat,  # a template writes its own
    )
    if isinstance(ids, Answer):
        return ids
    return Prompt(
        ids,
        planned.prompt.max_tokens,
        planned.seed or 0,
        temperature=planned.profile.temperature,
        top_p=planned.profile.top_p,
        stop=planned.prompt.stop,
    )


def _rendered(engine: Engine, planned: Planned) -> str:
    if engine.tokenizer.chat_template is None:
        raise ValueError(
            f"{engine.tokenizer.name_or_path}: its tokenizer has no chat template, and this model "
            "is to be asked in style chat. Give eval.style=completion for a base model"
        )
    text: str = engine.tokenizer.apply_chat_template(
        [dict(message) for message in planned.prompt.messages],
        tokenize=False,
        add_generation_prompt=not planned.beginning,
        continue_final_message=bool(planned.beginning),
    )
    return text


def _answer(engine: Engine, planned: Planned, prompt: Prompt, generated: Generated) -> Answer:
    whole = engine.tokenizer.decode(generated.ids, skip_special_tokens=True)
    text = cut_at_stop(whole, planned.prompt.stop)
    return Answer(
        key=planned.task_id,
        text=text or None,
        finish_reason=generated.finish_reason if text == whole else "stop",
        num_prompt_tokens=len(prompt.ids),
        num_output_tokens=generated.num_tokens,
        failure=None if text else "no_content",
        is_completion=True,
    )


def _keep(file: GenerationFile, tracker: Tracker, planned: Planned, answer: Answer) -> None:
    file.append(generation_of(planned, answer))
    tracker()
    tracker.report(
        num_prompt_tokens=answer.num_prompt_tokens or 0,
        num_output_tokens=answer.num_output_tokens or 0,
    )
