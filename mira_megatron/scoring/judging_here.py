"""Has the records of parts judged by a model on this machine, batch by batch.

What the model answered is kept in the answer store, batch by batch, before a row is made of it. So
a killed process loses the batch in work at most, and records that stand elsewhere by then, or among
others, are not asked about again. The key is made of everything that decides such an answer; a
server's answers have other keys. No token is charged: nobody bills for these.

The model is loaded when a question comes up that the store has no answer to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from mira_megatron.launchers.claimed_parts import taken_over, unclaimed
from mira_megatron.progress import Tracker, track
from mira_megatron.rubric.views import ViewMaker
from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.generation import LocalJudge
from mira_megatron.scoring.judge import Judge, model_files
from mira_megatron.scoring.judged_parts import Form, JudgedPart, Judging, records_of
from mira_megatron.scoring.local_engines import local_judge
from mira_megatron.scoring.question_keys import QuestionKeys, encoded_messages
from mira_megatron.scoring.questions import Question, Reply, not_kept
from mira_megatron.scoring.stored_answer import Charged, kept


def judge_here(parts: Sequence[JudgedPart], judging: Judging) -> None:
    """Judges and writes the parts that are not there yet, one after the other.

    Of a unit that is shared, those that this worker claims. Raises ValueError where the engine is
    not installed or cannot load the model, and what AnswerStore raises.
    """
    form, judge = judging.form, judging.judge
    missing = [part for part in parts if not part.output.is_file()]
    num_records = sum(part.num_records for part in missing)
    with track(judging.title, num_records) as advance, ExitStack() as at_end:
        model = _Model(judge, form, at_end)
        for stretch in _stretches(missing, judging):
            first = next(stretch, None)
            if first is None:
                continue
            with AnswerStore(judge.answers) as store:
                asking = _Asking(judging, store, model, advance)
                for part in chain([first], stretch):
                    judging.write(part, asking.table(part))


def only_reply(answer: Answer, form: Form[Any]) -> Reply:
    """Returns an answer that there is one attempt at."""
    parsed = form.read(answer) if answer.failure is None else None
    return Reply(key=answer.key, answer=answer, num_attempts=1, parsed=parsed)


def question_keys(judge: Judge) -> QuestionKeys:
    """Returns what makes the keys of a judge's answers, which are those of its model's files."""
    config = judge.config
    assert judge.model_folder is not None, "check_has_model, or distilled_judge"
    runs_on = (config.engine, config.dtype, config.max_model_len)
    sampling = (config.temperature, config.top_p, config.max_tokens, judge.seed)
    weights = judge.weights or model_files(judge.model_folder)
    return QuestionKeys([*runs_on, config.answer_mode, *sampling, weights])


def _stretches(missing: Sequence[JudgedPart], judging: Judging) -> Iterator[Iterator[JudgedPart]]:
    """Yields parts to be judged with one opening of the store each.

    What a worker that is gone has left in its journal is found when the store is opened after it.
    """
    if judging.claims is None:
        yield iter(missing)
        return
    yield unclaimed(missing, judging.claims)
    for part in taken_over(missing, judging.claims):
        yield iter([part])


@dataclass(slots=True)
class _Model:
    """The judge's model, loaded when it is needed; `at_end` frees it, for the next unit's own."""

    judge: Judge
    form: Form[Any]
    at_end: ExitStack
    loaded: LocalJudge | None = None

    def answers(self, questions: Sequence[Question]) -> Iterator[list[Answer]]:
        """Yields answers as LocalJudge does."""
        if self.loaded is None:
            model = local_judge(self.judge, self.form.example_answers())
            self.loaded = self.at_end.enter_context(closing(model))
        return self.loaded.answers(questions)


@dataclass(slots=True)
class _Asking:
    """Asks about a part's records what the store does not know, and keeps what is answered."""

    judging: Judging
    store: AnswerStore
    model: _Model
    advance: Tracker
    keys: QuestionKeys = field(init=False)
    view_maker: ViewMaker = field(init=False)

    def __post_init__(self) -> None:
        judge = self.judging.judge
        self.keys = question_keys(judge)
        self.view_maker = ViewMaker(judge.config.max_record_tokens, judge.tokenizer)

    def table(self, part: JudgedPart) -> pa.Table:
        """Returns the rows of a part's records, in their order."""
        form = self.judging.form
        records = list(records_of(part))
        views = [self.view_maker.view(record) for record in records]
        questions = [
            Question(
                key=str(number),  # whatever ids the records have
                record_id=record.record_id,
                messages=form.messages(view.text),
            )
            for number, (record, view) in enumerate(zip(records, views, strict=True))
        ]
        replies = [only_reply(answer, form) for answer in self._answers(questions)]
        rows = [
            form.row(record, view, self.judging.settled(part, number, replies[number]))
            for number, (record, view) in enumerate(zip(records, views, strict=True))
        ]
        return form.table(rows)

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Returns the answers in the order of the questions; of equal ones one is asked."""
        stored_as = {question.key: self._stored_as(question) for question in questions}
        keys = dict.fromkeys(key for key in stored_as.values() if key is not None)
        known = {key: stored.answer("") for key, stored in self.store.known([*keys]).items()}
        # What cannot be kept is told apart by its place; no digest is as short.
        named = {place: stored_as[place] or place for place in stored_as}
        asked: dict[str, Question] = {}
        for question in questions:
            if named[question.key] not in known:
                asked.setdefault(named[question.key], question)
        if not self.judging.asks:
            known |= {name: not_kept(name) for name in asked}
            asked.clear()
        self.advance(len(questions) - len(asked))
        for batch in self.model.answers([*asked.values()]) if asked else ():
            for answer in batch:
                key = stored_as[answer.key]
                if key is not None and answer.is_completion:
                    stored = kept(
                        answer, key=key, model=self.judging.judge.model, charged=Charged()
                    )
                    self.store.put(stored)
                known[named[answer.key]] = answer
            self.advance(len(batch))
        return [replace(known[named[each.key]], key=each.key) for each in questions]

    def _stored_as(self, question: Question) -> str | None:
        """Returns the key of an answer; None for half a character, which no model can be asked."""
        try:
            return self.keys.key(encoded_messages(question.messages))
        except orjson.JSONEncodeError:
            return None
