"""Refusing settings by which a document would seem to see only itself, and sees its neighbours.

A sample of a blend holds several documents, one after the other. In the releases below a token
attends to every earlier token of its sample, whatever document it is of; what a dataset config
offers against that has no effect. Free of Bridge and torch: any ConfigContainer is looked at.

Megatron-Bridge 0.3.1 (read in its source, and in megatron-core 0.16.1 and Transformer Engine's):
* training/gpt_step.py drops the dataset's mask, unless the dataset's
  `skip_getting_attention_mask_from_dataset` is False; a dataset without that field counts as True.
* A mask that does arrive is not looked at by Transformer Engine: megatron-core's GPT layers ask for
  causal attention (models/gpt/gpt_layer_specs.py), and DotProductAttention uses a mask with
  "padding" or "arbitrary" kinds only. Nor by megatron-core's own fused causal softmax, which takes
  up to 4,096 tokens (fusions/fused_softmax.py).
* Position ids that begin again at each document are not read by rotary embeddings, which count a
  sample's positions themselves (models/gpt/gpt_model.py).
* A mask of 32,768 x 32,768 float32 values is 4.3 GB for each sample in the loader.
"""

from __future__ import annotations

from typing import Any

_FUSED_UP_TO = 4096  # tokens
_WAY_OUT = (
    "Set {field}=False, which is what happens, and read documents in one sample as they are: "
    "divided by the end of document alone (docs/midtraining.md)."
)


def refuse_silent_attention(config: Any) -> None:
    """Raises ValueError for a ConfigContainer whose dataset settings would silently do nothing.

    To be called with the whole config before `pretrain`. Nothing is said of a mask that is used: by
    megatron-core's own attention, unfused.
    """
    dataset, model = config.dataset, config.model
    if getattr(dataset, "reset_attention_mask", None):
        reasons = _why_no_mask(dataset, model)
        if reasons:
            raise ValueError(
                "dataset.reset_attention_mask=True has no effect, and attention would go across "
                f"documents: {'; '.join(reasons)}. {_WAY_OUT.format(field='reset_attention_mask')}"
            )
    if getattr(dataset, "reset_position_ids", None):
        kind = getattr(model, "position_embedding_type", "rope")
        if kind in ("rope", "yarn"):
            raise ValueError(
                f"dataset.reset_position_ids=True has no effect with position_embedding_type="
                f"{kind!r}, which counts positions itself. "
                f"{_WAY_OUT.format(field='reset_position_ids')}"
            )


def _why_no_mask(dataset: Any, model: Any) -> list[str]:
    """Returns every reason for which the dataset's mask does not reach the softmax."""
    reasons = []
    if getattr(dataset, "skip_getting_attention_mask_from_dataset", True):
        reasons.append("dataset.skip_getting_attention_mask_from_dataset=True drops the mask")
    if getattr(dataset, "create_attention_mask", True) is False:
        reasons.append("dataset.create_attention_mask=False makes none")
    if getattr(model, "transformer_impl", "transformer_engine") != "local":
        reasons.append("Transformer Engine's causal attention takes no mask")
    elif getattr(model, "masked_softmax_fusion", True) and model.seq_length <= _FUSED_UP_TO:
        reasons.append("model.masked_softmax_fusion=True: the fused causal softmax takes no mask")
    return reasons
