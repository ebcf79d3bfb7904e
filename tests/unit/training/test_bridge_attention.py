"""Which settings say that documents do not see each other, and which make it so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mira_megatron.training.bridge_attention import refuse_silent_attention

HONEST_MASK = {
    "skip_getting_attention_mask_from_dataset": False,
    "create_attention_mask": True,
    "transformer_impl": "local",
    "masked_softmax_fusion": False,
    "reset_attention_mask": True,
}
OF_MODEL = ("transformer_impl", "masked_softmax_fusion", "position_embedding_type", "seq_length")


def config(**settings: Any) -> Any:
    model = {name: settings.pop(name) for name in OF_MODEL if name in settings}
    model = {"seq_length": 4096, "position_embedding_type": "rope", **model}
    return SimpleNamespace(dataset=SimpleNamespace(**settings), model=SimpleNamespace(**model))


def test_a_mask_that_is_used_and_none_that_is_asked_for_pass() -> None:
    refuse_silent_attention(config(**HONEST_MASK))
    refuse_silent_attention(config())  # a provider without such settings
    refuse_silent_attention(config(reset_attention_mask=False, reset_position_ids=False))
    refuse_silent_attention(
        config(reset_position_ids=True, position_embedding_type="learned_absolute")
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"skip_getting_attention_mask_from_dataset": True}, "=True drops the mask"),
        ({"create_attention_mask": False}, "create_attention_mask=False makes none"),
        ({"transformer_impl": "transformer_engine"}, "Transformer Engine's causal attention"),
        ({"masked_softmax_fusion": True}, "the fused causal softmax takes no mask"),
    ],
)
def test_each_way_in_which_a_mask_gets_lost_is_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"reset_attention_mask=True has no effect.*{reason}"):
        refuse_silent_attention(config(**{**HONEST_MASK, **change}))


def test_missing_field_counts_as_bridge_counts_it() -> None:
    without = {name: HONEST_MASK[name] for name in HONEST_MASK if not name.startswith("skip")}
    with pytest.raises(ValueError, match="drops the mask"):
        refuse_silent_attention(config(**without))


def test_fused_softmax_is_no_matter_for_samples_it_does_not_take() -> None:
    refuse_silent_attention(
        config(**{**HONEST_MASK, "masked_softmax_fusion": True}, seq_length=8192)
    )


@pytest.mark.parametrize("kind", ["rope", "yarn"])
def test_positions_that_begin_again_are_refused_where_nobody_reads_them(kind: str) -> None:
    with pytest.raises(ValueError, match=f"position_embedding_type='{kind}', which counts"):
        refuse_silent_attention(config(reset_position_ids=True, position_embedding_type=kind))
