"""The files of sft/<rubric>/<group>/, and how Megatron-Bridge is told to read them.

training.jsonl, validation.jsonl   one sample per line:
    {"input": prompt, "output": answer + <|im_end|>, "record_id": …, "source": …}
dropped.jsonl    {"record_id", "source", "reason", "detail"} of every labelled record left out
lengths.json     per source: rows, tokens of prompts and answers, how many records are shown whole
tokenizer.json   the base model's, or the one trained here

A sample's ids are encode(input) + encode(output), each encoded by itself with the tokenizer's added
tokens and nothing put around it; loss is on the output's ids only, <|im_end|> included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

TRAINING = "training.jsonl"
VALIDATION = "validation.jsonl"
DROPPED = "dropped.jsonl"
LENGTHS = "lengths.json"

# FinetuningDatasetConfig.dataset_kwargs of Megatron-Bridge 0.3.1, with which its GPTSFTDataset and
# GPTSFTPackedDataset make exactly the ids and the loss mask above. What else they need:
#   dataset_root  the folder; do_test=False, since there is no test.jsonl
#   seq_length    at least distill.sequence_length, or samples are cut without a word
#   tokenizer     the exported one, whose eos token is <|im_end|>: samples padded to a multiple
#                 (pad_seq_to_mult > 1) lose the loss on their padding by its being the eos token;
#                 with another one, the token after every <|im_end|> is trained on
# A packed file is taken as it lies if it exists: other labels need another folder.
BRIDGE_DATASET_KWARGS: dict[str, str | bool] = {
    "prompt_template": "{input}{output}",  # a space, as in the default, is text to some tokenizers
    "label_key": "output",
    "truncation_field": "input",
    "answer_only_loss": True,
    "add_bos": False,
    "add_eos": False,  # the output brings its own end
    "add_sep": False,
    "chat": False,
}


@dataclass(frozen=True, slots=True)
class SftRow:
    """One sample: what the scorer reads, and what it is to write."""

    input: str
    output: str
    record_id: str
    source: str

    def line(self) -> bytes:
        """Returns the row as a line of JSON."""
        return orjson.dumps(self, option=orjson.OPT_APPEND_NEWLINE)


def read_rows(path: Path) -> Iterator[SftRow]:
    """Yields the rows of training.jsonl or validation.jsonl, one at a time.

    Raises ValueError with file and line for one that is not a sample.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield SftRow(**orjson.loads(line))
            except (TypeError, orjson.JSONDecodeError) as error:
                raise ValueError(
                    f"{path}:{number}: not a sample of input, output, record_id and source "
                    f"({error}). Delete {path.parent} to have it made again."
                ) from error
