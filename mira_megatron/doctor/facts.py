"""What the checks of a training look at: plain values, wherever they came from.

None is "not known", and a check that needs what is not known finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheFacts:
    """A file that Megatron-Bridge made of a jsonl, and takes again without looking at the text."""

    path: str
    mtime: float  # seconds
    source: str
    source_mtime: float
    # The digests of the text that the cache's folder is named after, and of the text that is there.
    made_of: str | None = None
    source_digest: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingFacts:
    """A training, as far as it is known before it starts."""

    model: str | None = None  # a recipe's model, as bridge_models names it
    hf_architecture: str | None = None
    bridge_version: str | None = None
    mcore_version: str | None = None
    attention_variant: str | None = None  # "gated_delta_net" where the model has linear attention
    is_packed: bool | None = None
    context_parallel: int | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    expert_parallel: int | None = None
    num_gpus: int | None = None
    global_batch_size: int | None = None
    micro_batch_size: int | None = None
    sequence_length: int | None = None
    num_training_tokens: int | None = None  # at most
    tokenizer_type: str | None = None
    tokenizer_folder: str | None = None
    eos_token: str | None = None
    answer_only_loss: bool | None = None
    is_chat: bool | None = None
    chat_template: str | None = None  # the tokenizer's own
    adds_eos: bool | None = None
    prompt_template: str | None = None
    num_tokenizer_ids: int | None = None  # highest id + 1
    model_vocab_size: int | None = None  # rows that the config gives the embedding; None: padded
    checkpoint_vocab_size: int | None = None  # rows of the weights that training starts from
    vocab_divisor: int | None = None  # make_vocab_size_divisible_by
    caches: tuple[CacheFacts, ...] = ()
