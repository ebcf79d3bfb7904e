"""`perplexity` with `engine: endpoint` on a real vLLM server: losses equal to transformers' own."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml  # OmegaConf brings it
from smoke_runs import assert_done, mira
from tiny_chat_model import write_tiny_chat_model
from vllm_server import VllmServer, free_port, running, vllm_command

pytestmark = pytest.mark.integration

WINDOW = 256
TEXTS = [
    *(f"def f{number}(x):\n    return x * {number}\n" * number for number in range(1, 60, 6)),
    "<|endoftext|> and <|im_start|> in a text are text",
    "zwölf Boxkämpfer jagen Viktor über den Sylter Deich",
    "a",
]


def test_losses_of_vllm_are_those_of_transformers(tmp_path: Path) -> None:
    model = write_tiny_chat_model(tmp_path / "tiny-chat")
    log_path = tmp_path / "vllm.log"
    (tmp_path / "s.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    server = VllmServer(url=f"http://127.0.0.1:{free_port()}", model=model.name)
    command = vllm_command(model, server, max_model_len=WINDOW + 1)
    # By itself vLLM halves the precision of a float32 model.
    with running([*command, "--dtype", "float32"], server, log_path):
        windows = {"one": {}, "strided": {"stride_tokens": 100}}
        here = {"method": "perplexity", "model": str(model), "window_tokens": WINDOW}
        served = {
            **here,
            "engine": "endpoint",
            "model": server.model,
            "tokenizer": str(model / "tokenizer.json"),
            "endpoints": [server.endpoint],
            "max_failed_fraction": 0.0,
        }
        recipe = {
            "run_folder": str(tmp_path / "run"),
            "seed": 7,
            "sources": {
                "s": {
                    "format": "jsonl",
                    "family": "text",
                    "fields": {"text": "text"},
                    "paths": [str(tmp_path / "s.jsonl")],
                }
            },
            "ingest": {"records_per_part": 5, "max_bad_fraction": 0.0},
            "baselines": {
                f"{who}_{name}": {**settings, **window}
                for name, window in windows.items()
                for who, settings in (("here", here), ("served", served))
            },
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        assert_done(mira("ingest", path))
        assert_done(mira("baseline", path))
    for name in windows:
        measured, asked = (losses(tmp_path, f"{who}_{name}") for who in ("here", "served"))
        assert [num for _, num in asked] == [num for _, num in measured]
        assert sum(loss is None for loss, _ in asked) == 1
        for (ours, num), (theirs, _) in zip(asked, measured, strict=True):
            if num:
                assert ours == pytest.approx(theirs, abs=1e-3)
    assert max(num for _, num in losses(tmp_path, "served_strided")) > 2 * WINDOW


def losses(folder: Path, baseline: str) -> list[tuple[float | None, int]]:
    """Returns loss and targets of every record."""
    parts = sorted((folder / "run/baselines" / baseline / "losses/s").glob("part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return [(row["loss"], row["num_targets"]) for row in rows]
