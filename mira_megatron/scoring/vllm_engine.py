"""Runs a model with vLLM in this process (its `LLM` class), on as many GPUs as it is told.

Prompts go to vLLM as tokens, so that a prompt that was found to fit does fit, and what an answer
would have gone on with after another token is one more prompt, served from the prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from mira_megatron.scoring.answer_draft import Place
from mira_megatron.scoring.expected_scores import TOP_LOGPROBS
from mira_megatron.scoring.generation import Doubts, Generated, LocalModel, Prompt, Top

# vLLM forms its own batches of these. A killed process loses at most so many answers, and between
# two calls the GPU waits for the last of one: some eight waves of the 256 that it answers at once.
_PROMPTS_AT_ONCE = 2_048


class VllmEngine:
    """A model that vLLM has loaded; raises ValueError for a folder that it cannot load."""

    def __init__(self, settings: LocalModel) -> None:
        self._settings = settings
        try:
            self._llm: Any = LLM(
                model=str(settings.folder),
                dtype=settings.dtype,
                max_model_len=settings.max_model_len,
                tensor_parallel_size=settings.tensor_parallel_size,
                gpu_memory_utilization=settings.gpu_memory_utilization,
                enable_prefix_caching=True,
                max_logprobs=TOP_LOGPROBS,
                seed=settings.seed,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{settings.folder}: vLLM cannot load this model ({error}). Its own words are "
                "above; give a folder of a model that it serves, and memory enough."
            ) from error
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.max_model_len = int(self._llm.llm_engine.model_config.max_model_len)

    def batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Yields the numbers of prompts in their order, as many as keep vLLM busy."""
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            yield list(range(start, min(start + _PROMPTS_AT_ONCE, len(prompts))))

    def generate(
        self, prompts: Sequence[Prompt], draft: Place | None, doubts: Doubts | None
    ) -> list[Generated]:
        """Returns the answers to a batch in the order of the prompts; see generation.Engine.

        A draft is of no use here: vLLM checks drafts of its own only.
        """
        answers = [
            _generated(output, has_tops=doubts is not None)
            for output in self._outputs(
                prompts, has_tops=doubts is not None, regex=self._settings.answer_regex
            )
        ]
        if doubts is not None:
            self._look_closer(prompts, answers, doubts)
        return answers

    def close(self) -> None:
        """Ends the processes that vLLM has started, which hold the model and its cache."""
        self._llm.llm_engine.engine_core.shutdown()

    def _look_closer(
        self, prompts: Sequence[Prompt], answers: Sequence[Generated], doubts: Doubts
    ) -> None:
        """Asks what is doubtful, and notes it in the answers."""
        others = [(index, other) for index, each in enumerate(answers) for other in doubts(each)]
        begun = [
            Prompt([*prompts[index].ids, *answers[index].ids[: other.number], other.token_id], 1)
            for index, other in others
        ]
        outputs = self._outputs(begun, has_tops=True, regex=None)
        for (index, other), output in zip(others, outputs, strict=True):
            answers[index].after_other[other.number] = _top(output.outputs[0].logprobs[0])

    def _outputs(
        self, prompts: Sequence[Prompt], *, has_tops: bool, regex: str | None
    ) -> list[Any]:
        if not prompts:
            return []
        sampling = [
            SamplingParams(
                temperature=prompt.temperature,
                top_p=prompt.top_p,
                seed=prompt.seed,
                stop=list(prompt.stop),
                max_tokens=prompt.room,
                logprobs=TOP_LOGPROBS if has_tops else None,
                structured_outputs=None if regex is None else StructuredOutputsParams(regex=regex),
            )
            for prompt in prompts
        ]
        tokens = [{"prompt_token_ids": prompt.ids} for prompt in prompts]
        outputs: list[Any] = self._llm.generate(tokens, sampling, use_tqdm=False)
        return outputs


def _generated(output: Any, *, has_tops: bool) -> Generated:
    completion = output.outputs[0]
    ids = list(completion.token_ids)
    is_whole = completion.finish_reason == "stop"
    # vLLM's ids hold the token that ended the answer; a stop word is part of the answer.
    kept = len(ids) - (is_whole and not isinstance(completion.stop_reason, str))
    tops: list[Top | None] = [None] * kept
    if has_tops:
        tops = [_top(likeliest) for likeliest in completion.logprobs[:kept]]
    return Generated(
        ids=ids[:kept],
        tops=tops,
        num_tokens=len(ids),
        finish_reason="stop" if is_whole else "length",
    )


def _top(likeliest: Mapping[int, Any]) -> Top:
    """Returns ids and log-probabilities, the likeliest first; vLLM's mapping has no order."""
    pairs = [(int(token_id), float(each.logprob)) for token_id, each in likeliest.items()]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:TOP_LOGPROBS])
