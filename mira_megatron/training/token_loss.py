"""The loss of a micro-batch, computed only where there is one.

Shape letters: B samples, S tokens of a sample, H hidden size, N tokens of the batch with a loss.
"""

from __future__ import annotations

from megatron.core import tensor_parallel
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import Tensor

from mira_megatron.training.batches import Batch


def summed_loss(model: GPTModel, batch: Batch) -> Tensor:
    """Returns the cross entropy in nats, weighted by the loss mask and summed; a float32 scalar.

    The output layer is applied to the tokens with a loss alone. In supervised fine-tuning these are
    a fraction of all, and for a small model the output layer is most of the work.
    """
    hidden_SBH = hidden_states(model, batch)
    loss_mask_SB = batch.loss_mask_BS.t()
    has_loss_SB = loss_mask_SB != 0
    output_weight = (
        model.shared_embedding_or_output_weight()
        if model.share_embeddings_and_output_weights
        else None
    )
    logits_NV, _ = model.output_layer(hidden_SBH[has_loss_SB], weight=output_weight)
    loss_N = tensor_parallel.vocab_parallel_cross_entropy(
        logits_NV.float(), batch.labels_BS.t()[has_loss_SB]
    )
    loss: Tensor = (loss_N * loss_mask_SB[has_loss_SB]).sum()
    return loss


def hidden_states(model: GPTModel, batch: Batch) -> Tensor:
    """Returns what GPTModel hands to its output layer, [S, B, H]."""
    hidden_SBH = model.embedding(
        input_ids=batch.tokens_BS,
        position_ids=batch.position_ids_BS,
    )
    states_SBH: Tensor = model.decoder(
        hidden_states=hidden_SBH,
        attention_mask=batch.attention_mask_B1SS,
        # As GPTModel has it: rotary positions count from the start of the sample.
        rotary_pos_emb=model.rotary_pos_emb(batch.tokens_BS.shape[1]),
    )
    return states_SBH
