"""The embedder that runs a sentence-transformers model in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from mira_megatron.grouping.embedders import EmbedderConfig
from mira_megatron.grouping.unit_vectors import Floats


def embed_texts(texts: Sequence[str], config: EmbedderConfig) -> Floats:
    """Returns one vector per text, shape (N, D); ValueError where the model gives another D."""
    model = SentenceTransformer(config.model)
    vector_ND: Floats = np.asarray(
        model.encode(list(texts), batch_size=config.batch_size, show_progress_bar=False),
        np.float32,
    )
    expected = (len(texts), config.dimensions)
    if vector_ND.shape != expected or not np.isfinite(vector_ND).all():
        raise ValueError(
            f"embedder.model={config.model}: expected finite vectors of shape {expected}, found "
            f"shape {vector_ND.shape}. Set embedder.dimensions to what the model gives"
        )
    return vector_ND
