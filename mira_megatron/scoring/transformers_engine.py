"""Runs a small model with Hugging Face transformers, on the CPU or a CUDA device.

Decoding in batches of prompts of like length, greedy or drawn: each answer from the seed of its
prompt, whatever else is in its batch. What a draft proposes is checked in one pass over all of its
tokens, and kept up to the first that the model would not have chosen itself: the answers are those
of plain greedy decoding, in a tenth of its steps; drawn ones have no drafts. Keys and values of
tokens that were not kept stay in the cache, where no later token looks at them.

Arrays: B answers, W tokens fed at once, C tokens in the cache, N answers that are drawn,
V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from mira_megatron.scoring.answer_draft import Place
from mira_megatron.scoring.expected_scores import TOP_LOGPROBS
from mira_megatron.scoring.generation import Doubts, Generated, LocalModel, Prompt, Top

_Text = Callable[[Sequence[int]], str]

_END = "<|im_end|>"
_DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}
# Waiting for the last of a batch costs more than taking those that have ended out of it.
_ENDED_FRACTION = 0.5
_SPARE_TOKENS = 4  # before a stop word, should it begin inside of a token


@dataclass(kw_only=True, slots=True, eq=False)
class _Row:
    """An answer that is being written."""

    number: int  # of its prompt
    prompt: Prompt
    place: Place | None  # in the draft, after the last token; None where the answer left it
    ids: list[int] = field(default_factory=list)
    tops: list[Top | None] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)  # of the cache, of the tokens fed
    finish_reason: str | None = None
    has_end_token: bool = False
    draws: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draws = random.Random(self.prompt.seed)

    @property
    def is_drawn(self) -> bool:
        """Returns whether its next token is drawn, and not the likeliest."""
        return self.prompt.temperature > 0 and self.finish_reason is None

    def draft(self) -> list[int]:
        """Returns tokens that are likely to follow; with one more they are within the room."""
        if self.place is None or self.finish_reason is not None or self.is_drawn:
            return []
        return self.place.sure_tokens()[: self.prompt.room - len(self.ids) - 1]

    def take(self, token_id: int, top: Top | None, end_ids: frozenset[int], text: _Text) -> None:
        """Adds a token that the model chose, unless the answer has ended.

        `text` returns that of tokens.
        """
        if self.finish_reason is not None:
            return
        self.place = self.place and self.place.following.get(token_id)
        self.ids.append(token_id)
        self.tops.append(top)
        if token_id in end_ids:
            self.finish_reason = "stop"
            self.has_end_token = True
        elif self._has_stop_word(text):
            self.finish_reason = "stop"
        elif len(self.ids) == self.prompt.room:
            self.finish_reason = "length"

    def generated(self) -> Generated:
        """Returns the answer, which has ended."""
        assert self.finish_reason is not None
        kept = len(self.ids) - self.has_end_token
        return Generated(
            ids=self.ids[:kept],
            tops=self.tops[:kept],
            num_tokens=len(self.ids),
            finish_reason=self.finish_reason,
        )

    def _has_stop_word(self, text: _Text) -> bool:
        """Returns whether the last token ended a stop word; no token is of less than a byte."""
        stop = self.prompt.stop
        if not stop:
            return False
        longest = max(len(word.encode()) for word in stop)
        tail = text(self.ids[-(longest + _SPARE_TOKENS) :])
        return any(word in tail for word in stop)


class TransformersEngine:
    """A causal language model of transformers, loaded once.

    Raises ValueError for a folder that holds no such model, and for one whose layers do not all
    look at every earlier token.
    """

    def __init__(self, settings: LocalModel) -> None:
        folder = str(settings.folder)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=_DTYPES[settings.dtype],
                attn_implementation="sdpa",
                local_files_only=True,
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{folder}: transformers cannot load this model ({error}). Give the folder of a "
                "Hugging Face causal language model with its tokenizer."
            ) from error
        _check_attention(settings.folder, model.config)
        self._model: Any = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._device = self._model.device
        self._batch_size = settings.batch_size
        self._end_ids = _end_ids(self._model, self.tokenizer)
        self.max_model_len = settings.max_model_len or int(model.config.max_position_embeddings)

    def batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Yields the numbers of prompts of like length, at most batch_size together."""
        by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number].ids))
        for start in range(0, len(by_length), self._batch_size):
            yield by_length[start : start + self._batch_size]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], draft: Place | None, doubts: Doubts | None
    ) -> list[Generated]:
        """Returns the answers to a batch in the order of the prompts; see generation.Engine."""
        rows = [
            _Row(number=number, prompt=prompt, place=draft) for number, prompt in enumerate(prompts)
        ]
        answers = self._generate(rows, doubts)
        return [answers[number] for number in range(len(prompts))]

    def close(self) -> None:
        """Frees the model's memory."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _generate(self, rows: list[_Row], doubts: Doubts | None) -> dict[int, Generated]:
        batch = _Batch(self._model, self._device, rows, self._text)
        answers: dict[int, Generated] = {}
        has_tops = doubts is not None
        batch.step(self._end_ids, has_tops=has_tops)
        while batch.rows:
            ended = [row for row in batch.rows if row.finish_reason is not None]
            if len(ended) >= _ENDED_FRACTION * len(batch.rows):
                answers.update(_settle(batch, ended, doubts))
            else:
                batch.step(self._end_ids, has_tops=has_tops)
        return answers


class _Batch:
    """Rows, and the cache of what was fed for them."""

    def __init__(self, model: Any, device: Any, rows: list[_Row], text: _Text) -> None:
        self.rows = rows
        self._text = text
        self._model = model
        self._device = device
        self._cache = DynamicCache(config=model.config)
        self._is_kept_BC = torch.zeros(len(rows), 0, dtype=torch.bool, device=device)

    def step(self, end_ids: frozenset[int], *, has_tops: bool) -> None:
        """Feeds every row what the model has not seen of it, and takes what it chooses."""
        is_first = not self._is_kept_BC.shape[1]
        drafts = [row.draft() for row in self.rows]
        if is_first:  # one width, so that all end in the last column
            shortest = min(map(len, drafts))
            drafts = [draft[:shortest] for draft in drafts]
        known = [row.prompt.ids if is_first else row.ids[-1:] for row in self.rows]
        fed = [[*ids, *draft] for ids, draft in zip(known, drafts, strict=True)]
        starts = [0 if is_first else len(row.prompt.ids) + len(row.ids) - 1 for row in self.rows]
        num_last = len(drafts[0]) + 1 if is_first else 0
        logits_BWV = self._feed(fed, starts, is_left_padded=is_first, num_last=num_last)
        self._take(logits_BWV, fed, drafts, end_ids, has_tops=has_tops)

    def after_others(self, others: Sequence[Sequence[tuple[int, int]]]) -> list[list[Top]]:
        """Returns, for every row, what would follow each of its other tokens: (number, id)."""
        width = max(map(len, others))
        num_columns = self._is_kept_BC.shape[1]
        sees_BWC = torch.zeros(len(self.rows), width, num_columns, dtype=torch.bool)
        positions = torch.zeros(len(self.rows), width, dtype=torch.long)
        for index, (row, of_row) in enumerate(zip(self.rows, others, strict=True)):
            for place, (number, _) in enumerate(of_row):
                end = row.columns[number] if number < len(row.columns) else num_columns
                sees_BWC[index, place, :end] = True
                positions[index, place] = len(row.prompt.ids) + number
        sees_BWC = sees_BWC.to(self._device) & self._is_kept_BC[:, None]
        alone_BWW = torch.eye(width, dtype=torch.bool, device=self._device).expand(
            len(self.rows), -1, -1
        )
        ids = _padded([[token_id for _, token_id in of_row] for of_row in others], width)
        logits_BWV = self._forward(ids, positions, torch.cat((sees_BWC, alone_BWW), 2), 0)
        self._keep(torch.zeros(len(self.rows), width, dtype=torch.bool))
        return [
            _tops(logits_BWV[index, : len(of_row)]) if of_row else []
            for index, of_row in enumerate(others)
        ]

    def select(self, rows: list[_Row]) -> None:
        """Goes on with these rows only."""
        numbers = [self.rows.index(row) for row in rows]
        chosen = torch.tensor(numbers, dtype=torch.long, device=self._device)
        if rows:
            self._cache.batch_select_indices(chosen)
        self._is_kept_BC = self._is_kept_BC[chosen]
        self.rows = rows

    def _feed(
        self, fed: list[list[int]], starts: list[int], *, is_left_padded: bool, num_last: int
    ) -> Tensor:
        """Returns the logits after what is fed, whose first tokens are at `starts`."""
        width = max(map(len, fed))
        ids = _padded(fed, width, is_left=is_left_padded)
        lengths = torch.tensor([len(each) for each in fed])[:, None]
        places = torch.arange(width)[None] - (width - lengths if is_left_padded else 0)
        is_fed_BW = (places >= 0) & (places < lengths)
        positions = (places + torch.tensor(starts)[:, None]).clamp(min=0)
        is_fed = is_fed_BW.to(self._device)
        past_BWC = self._is_kept_BC[:, None].expand(-1, width, -1)
        # Padding looks at itself, for a softmax over nothing has no value.
        own = torch.eye(width, dtype=torch.bool, device=self._device)
        earlier = torch.ones(width, width, dtype=torch.bool, device=self._device).tril()
        chunk_BWW = (earlier & is_fed[:, None]) | own
        logits = self._forward(ids, positions, torch.cat((past_BWC, chunk_BWW), 2), num_last)
        self._first_columns = [
            self._is_kept_BC.shape[1] + (width - len(each) if is_left_padded else 0) for each in fed
        ]
        self._keep(is_fed_BW)
        return logits

    def _forward(self, ids: Tensor, positions: Tensor, sees: Tensor, num_last: int) -> Tensor:
        output = self._model(
            input_ids=ids.to(self._device),
            attention_mask=sees[:, None],
            position_ids=positions.to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=num_last,
        )
        logits: Tensor = output.logits
        return logits

    def _keep(self, is_kept_BW: Tensor) -> None:
        self._is_kept_BC = torch.cat((self._is_kept_BC, is_kept_BW.to(self._device)), 1)

    def _take(
        self,
        logits_BWV: Tensor,
        fed: list[list[int]],
        drafts: list[list[int]],
        end_ids: frozenset[int],
        *,
        has_tops: bool,
    ) -> None:
        """Takes of every draft what the model chose too, and the model's own next token."""
        chosen = logits_BWV.argmax(-1).tolist()
        self._draw(logits_BWV, chosen)
        num_agreed = [_num_agreed(draft, ids) for draft, ids in zip(drafts, chosen, strict=True)]
        tops: Sequence[Top | None] = [None] * len(fed)
        if has_tops:
            numbers = torch.arange(len(fed), device=self._device)
            last = torch.tensor(num_agreed, device=self._device)
            tops = _tops(logits_BWV[numbers, last])
        for index, row in enumerate(self.rows):
            first, agreed = self._first_columns[index], num_agreed[index]
            if row.finish_reason is not None:
                self._is_kept_BC[index, first:] = False
                continue
            # The tokens of the answer among those fed: its last one, and what is kept of the draft.
            end = first + len(fed[index]) - len(drafts[index]) + agreed
            row.columns.extend(range(end - agreed - bool(row.ids), end))
            self._is_kept_BC[index, end:] = False
            for token_id in drafts[index][:agreed]:
                row.take(token_id, None, end_ids, self._text)
            row.take(chosen[index][agreed], tops[index], end_ids, self._text)

    def _draw(self, logits_BWV: Tensor, chosen: list[list[int]]) -> None:
        """Puts what is drawn in the place of the likeliest token; no draft stands before it."""
        indices = [index for index, row in enumerate(self.rows) if row.is_drawn]
        if not indices:
            return
        drawn = _drawn(logits_BWV[indices, 0], [self.rows[index] for index in indices])
        for index, token_id in zip(indices, drawn, strict=True):
            chosen[index][0] = token_id


def _settle(batch: _Batch, ended: list[_Row], doubts: Doubts | None) -> dict[int, Generated]:
    """Returns the answers of the rows that have ended, after what is to be asked about them."""
    answers = {row.number: row.generated() for row in ended}
    if doubts is not None:
        others = [
            [(other.number, other.token_id) for other in doubts(answers[row.number])]
            if row.number in answers
            else []
            for row in batch.rows
        ]
        if any(others):
            for row, of_row, tops in zip(
                batch.rows, others, batch.after_others(others), strict=True
            ):
                for (number, _), top in zip(of_row, tops, strict=True):
                    answers[row.number].after_other[number] = top
    batch.select([row for row in batch.rows if row.number not in answers])
    return answers


def _drawn(logits_NV: Tensor, rows: Sequence[_Row]) -> list[int]:
    """Returns a token per row: of the likeliest that together have top_p, each by its share."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_NV.device)[:, None]

    temperatures = column([row.prompt.temperature for row in rows])
    likely_NV, ids_NV = torch.softmax(logits_NV.double() / temperatures, -1).sort(
        dim=-1, descending=True, stable=True
    )
    before_NV = likely_NV.cumsum(-1) - likely_NV
    is_kept_NV = before_NV < column([row.prompt.top_p for row in rows])
    ends_NV = (likely_NV * is_kept_NV).cumsum(-1)
    draws = column([row.draws.random() for row in rows]) * ends_NV[:, -1:]
    places = torch.searchsorted(ends_NV, draws, right=True)
    ids: list[int] = ids_NV.gather(1, places).squeeze(1).tolist()
    return ids


def _num_agreed(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """Returns how many tokens of the draft, from its first on, are those that were chosen."""
    for number, token_id in enumerate(draft):
        if chosen[number] != token_id:
            return number
    return len(draft)


def _tops(logits_NV: Tensor) -> list[Top]:
    """Returns the likeliest tokens of every place, the likeliest first."""
    logprobs = torch.log_softmax(logits_NV.float(), -1)
    values, ids = logprobs.topk(min(TOP_LOGPROBS, logprobs.shape[-1]), dim=-1)
    return [
        tuple(zip(of_place, likely, strict=True))
        for of_place, likely in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _padded(fed: Sequence[Sequence[int]], width: int, *, is_left: bool = False) -> Tensor:
    """Returns the tokens (B, W), filled up with token 0, which nothing looks at."""
    padding = [[0] * (width - len(ids)) for ids in fed]
    rows = [
        [*pad, *ids] if is_left else [*ids, *pad] for pad, ids in zip(padding, fed, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.long)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Returns the ids of the tokens that end an answer."""
    named = model.generation_config.eos_token_id
    ids = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id}
    ids.add(tokenizer.get_vocab().get(_END))
    return frozenset(ids - {None})


def _check_attention(folder: Path, config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or getattr(config, "sliding_window", None) is not None:
        raise ValueError(
            f"{folder}: engine=transformers knows models whose layers look at every earlier "
            f"token, and this one has {', '.join(sorted(kinds)) or 'a sliding window'}. Use "
            "engine: vllm."
        )
