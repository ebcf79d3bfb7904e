"""RecordEncoder against the stock tokenizer of the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from mira_megatron.corpus.renderers import ControlToken, Rendered, render
from mira_megatron.tokenization import plain_encoders
from mira_megatron.tokenization.text_columns import TextError
from mira_megatron.tokenization.tokenizer import (
    CONTROL_TOKENS,
    EncodedTexts,
    RecordEncoder,
    tokenizer_file,
    train_byte_level_bpe,
)

EOD = "<|endoftext|>"
TRAINED_ON = ["def double(number):\n    return 2 * number\n", "What is 2 + 2? It is 4.\n"] * 4
# Prints the tokenizer trained on the texts given as JSON, in a process with other hash seeds.
TRAIN_ELSEWHERE = """
import json, sys
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe
print(train_byte_level_bpe(json.loads(sys.argv[1]), 400).to_str())
"""

# What an adversarial record is made of: any text, and the strings of control tokens.
UNTRUSTED = st.lists(
    st.text(max_size=8) | st.sampled_from([*CONTROL_TOKENS, "<|im_", "start|>", "\n", "    "]),
    max_size=8,
).map("".join)
HARMLESS = UNTRUSTED.filter(lambda text: not any(token in text for token in CONTROL_TOKENS))


def trained() -> Tokenizer:
    return train_byte_level_bpe(TRAINED_ON, 400)


def saved(content: Tokenizer | dict[str, Any], folder: Path) -> Path:
    path = folder / "tokenizer.json"
    text = json.dumps(content) if isinstance(content, dict) else content.to_str()
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(trained(), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def stock(trained_path: Path) -> Any:
    return Tokenizer.from_file(str(trained_path))


@pytest.fixture(scope="module", params=["huggingface", "gigatoken"])
def encoder(trained_path: Path, request: pytest.FixtureRequest) -> RecordEncoder:
    return RecordEncoder(trained_path, EOD, request.param)


def encode_all(
    encoder: RecordEncoder, texts: Sequence[str], spans: Sequence[Sequence[int]] | None = None
) -> EncodedTexts:
    columns = None if spans is None else pa.array([list(s) for s in spans], pa.list_(pa.int64()))
    return encoder.encode(pa.array(texts, pa.large_string()), columns)


def documents(encoded: EncodedTexts) -> list[list[int]]:
    """The ids of every document."""
    ends = np.cumsum(encoded.num_tokens_D)
    assert len(encoded.ids_T) == (ends[-1] if len(ends) else 0)
    return [ids.tolist() for ids in np.split(encoded.ids_T, ends[:-1])] if len(ends) else []


def encode(encoder: RecordEncoder, text: str, spans: Sequence[int] = ()) -> EncodedTexts:
    return encode_all(encoder, [text], [spans])


def ids_without_eod(encoder: RecordEncoder, text: str, spans: Sequence[int] = ()) -> list[int]:
    ids: list[int] = encode(encoder, text, spans).ids_T.tolist()
    assert ids[-1] == encoder.eod_id
    return ids[:-1]


def control_ids(stock: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The control tokens among the ids, in order."""
    tokens = [stock.id_to_token(token_id) for token_id in ids]
    return [token for token in tokens if token in CONTROL_TOKENS]


def written_tokens(rendered: Rendered) -> list[str]:
    spans = rendered.control_spans
    return [rendered.text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)]


def test_encoder_ends_every_document_with_one_eod(encoder: RecordEncoder) -> None:
    first, second = documents(encode_all(encoder, ["2 + 2", ""]))
    assert first.count(encoder.eod_id) == 1
    assert first[-1] == encoder.eod_id
    assert second == [encoder.eod_id]


def test_encoder_takes_control_text_for_ordinary_text_and_counts_it(
    encoder: RecordEncoder, stock: Tokenizer
) -> None:
    text = "a<|endoftext|>b<think><|im_start|>user"
    encoded = encode(encoder, text)
    assert encoded.num_control_texts == 3
    assert control_ids(stock, encoded.ids_T.tolist()) == [EOD]
    assert stock.decode(encoded.ids_T[:-1].tolist(), skip_special_tokens=False) == text


def test_encoder_writes_a_renderers_span_as_one_control_id(
    encoder: RecordEncoder, stock: Tokenizer
) -> None:
    encoded = encode(encoder, "a<think>b", (1, 8))
    assert encoded.num_control_texts == 0
    assert encoded.ids_T.tolist() == [
        *stock.encode("a").ids,
        stock.token_to_id("<think>"),
        *stock.encode("b").ids,
        encoder.eod_id,
    ]


def test_encoder_without_the_token_of_a_span_writes_it_as_text(tmp_path: Path) -> None:
    content = json.loads(trained().to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<think>"]
    del content["model"]["vocab"]["<think>"]
    encoder = RecordEncoder(saved(content, tmp_path), EOD)
    assert ids_without_eod(encoder, "<think>", (0, 7)) == ids_without_eod(encoder, "<think>")
    assert len(ids_without_eod(encoder, "<think>", (0, 7))) > 1


@given(text=UNTRUSTED)
def test_encoder_lets_no_text_become_a_control_token(
    encoder: RecordEncoder, stock: Tokenizer, text: str
) -> None:
    encoded = encode(encoder, text)
    assert control_ids(stock, encoded.ids_T.tolist()) == [EOD]
    assert encoded.num_control_texts == sum(text.count(token) for token in CONTROL_TOKENS)


@given(text=UNTRUSTED)
def test_encoder_loses_no_byte(encoder: RecordEncoder, stock: Tokenizer, text: str) -> None:
    assert stock.decode(ids_without_eod(encoder, text), skip_special_tokens=False) == text


@given(text=HARMLESS)
def test_encoder_without_control_text_gives_the_stock_ids(
    encoder: RecordEncoder, stock: Tokenizer, text: str
) -> None:
    assert ids_without_eod(encoder, text) == stock.encode(text, add_special_tokens=False).ids


@given(question=HARMLESS, think=HARMLESS, answer=HARMLESS)
def test_encoder_of_a_rendered_record_gives_the_stock_ids(
    encoder: RecordEncoder, stock: Tokenizer, question: str, think: str, answer: str
) -> None:
    payload = {"question": question, "think": think, "answer": answer}
    rendered = render("qa_with_think", payload)
    ids = ids_without_eod(encoder, rendered.text, rendered.control_spans)
    assert ids == stock.encode(rendered.text, add_special_tokens=False).ids


@given(question=UNTRUSTED, answer=UNTRUSTED)
def test_encoder_of_a_rendered_record_has_the_renderers_control_tokens_alone(
    encoder: RecordEncoder, stock: Tokenizer, question: str, answer: str
) -> None:
    rendered = render("qa", {"question": question, "answer": answer})
    ids = ids_without_eod(encoder, rendered.text, rendered.control_spans)
    assert control_ids(stock, ids) == written_tokens(rendered)
    assert stock.decode(ids, skip_special_tokens=False) == rendered.text


@given(texts=st.lists(UNTRUSTED, max_size=5))
def test_encoder_of_many_texts_gives_what_each_gives_alone(
    encoder: RecordEncoder, texts: list[str]
) -> None:
    together = documents(encode_all(encoder, texts))
    assert together == [encode(encoder, text).ids_T.tolist() for text in texts]


def test_encoder_keeps_out_control_tokens_that_are_not_marked_special(
    encoder: RecordEncoder, tmp_path: Path
) -> None:
    # Qwen marks <think>, <tool_call> and their ends as not special.
    content = json.loads(trained().to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"].startswith("<|")
    unmarked = RecordEncoder(saved(content, tmp_path), EOD)
    text = "<think>2<tool_call>"
    for spans in ((), (0, 7)):
        assert (
            encode(unmarked, text, spans).ids_T.tolist()
            == encode(encoder, text, spans).ids_T.tolist()
        )
    assert encode(unmarked, text).num_control_texts == 2


def test_encoder_keeps_added_tokens_that_are_only_whitespace(tmp_path: Path) -> None:
    # GPT-NeoX and its relatives have added tokens for runs of spaces, which all code is full of.
    stock = trained()
    stock.add_tokens([AddedToken("    ", special=False, normalized=False)])
    encoder = RecordEncoder(saved(stock, tmp_path), EOD)
    text = "if x:\n    return 2"
    assert ids_without_eod(encoder, text) == stock.encode(text).ids


def test_encoder_of_a_model_that_finds_control_tokens_by_itself_is_refused(tmp_path: Path) -> None:
    # A unigram model finds its own control tokens as pieces of text.
    stock = Tokenizer(models.Unigram())
    stock.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "</s>"]
    stock.train_from_iterator(
        TRAINED_ON,
        trainers.UnigramTrainer(
            vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    with pytest.raises(ValueError, match=r"turns the text '</s>' into a control token by itself"):
        RecordEncoder(saved(stock, tmp_path), "</s>")


def test_encoder_of_a_model_that_marks_the_first_word_refuses_rendered_records_only(
    tmp_path: Path,
) -> None:
    stock = Tokenizer(models.BPE(unk_token="<unk>"))
    stock.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", EOD, *ControlToken]
    stock.train_from_iterator(
        ["user assistant\n"] * 4,
        trainers.BpeTrainer(vocab_size=60, special_tokens=special, show_progress=False),
    )
    encoder = RecordEncoder(saved(stock, tmp_path), EOD)
    rendered = render("qa", {"question": "user", "answer": "assistant"})
    assert ids_without_eod(encoder, "user") == stock.encode("user", add_special_tokens=False).ids
    with pytest.raises(ValueError, match="for sources of family text only"):
        ids_without_eod(encoder, rendered.text, rendered.control_spans)


def with_last_token_at(token_id: int, *, fill_the_gap: bool) -> dict[str, Any]:
    """The trained tokenizer with its last token moved to `token_id`."""
    content: dict[str, Any] = json.loads(trained().to_str())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    if fill_the_gap:
        vocabulary.update({f"unused{n}": n for n in range(vocabulary[last], token_id)})
    vocabulary[last] = token_id
    return content


def longest_token(content: dict[str, Any]) -> str:
    """The text of the token with the highest id."""
    vocabulary: dict[str, int] = content["model"]["vocab"]
    return max(vocabulary, key=lambda token: vocabulary[token]).replace("Ġ", " ")


@pytest.mark.parametrize("fill_the_gap", [True, False])
def test_encoder_vocabulary_is_larger_than_every_id_it_gives(
    tmp_path: Path, fill_the_gap: bool
) -> None:
    content = with_last_token_at(70_000, fill_the_gap=fill_the_gap)
    encoder = RecordEncoder(saved(content, tmp_path), EOD)
    ids = ids_without_eod(encoder, longest_token(content))
    assert 70_000 in ids
    assert encoder.vocab_size == 70_001


def test_encoder_gives_added_tokens_the_ids_that_the_stock_tokenizer_gives(tmp_path: Path) -> None:
    # The library numbers added tokens itself where the file leaves a gap before them.
    content = json.loads(trained().to_str())
    added = {**content["added_tokens"][0], "content": "<|end|>", "id": 70_000}
    content["added_tokens"].append(added)
    path = saved(content, tmp_path)
    encoder = RecordEncoder(path, "<|end|>")
    assert encoder.eod_id == Tokenizer.from_file(str(path)).token_to_id("<|end|>")
    assert encoder.eod_id < encoder.vocab_size


def test_encoder_of_ids_that_an_int32_cannot_hold_is_refused(tmp_path: Path) -> None:
    content = with_last_token_at(2**31, fill_the_gap=False)
    with pytest.raises(
        ValueError, match=r"ids up to 2,147,483,648, but a \.bin holds them as int32"
    ):
        RecordEncoder(saved(content, tmp_path), EOD)


def test_encoder_of_an_empty_text_whose_model_marks_first_words_gives_the_eod_alone(
    tmp_path: Path,
) -> None:
    stock = Tokenizer(models.BPE(unk_token="<unk>"))
    stock.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<unk>", EOD]
    stock.train_from_iterator(
        TRAINED_ON, trainers.BpeTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    )
    encoder = RecordEncoder(saved(stock, tmp_path), EOD)
    assert ids_without_eod(encoder, "") == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (pa.array(["a", None], pa.large_string()), "text 1: null"),
        (
            pa.array([b"a", b"b", b"c\xff"], pa.large_binary()).view(pa.large_string()),
            r"text 2: not UTF-8: invalid start byte \(byte 1\)",
        ),
        (
            # A lone surrogate, as some libraries write it.
            pa.array([b"a\xed\xa0\x80"], pa.large_binary()).view(pa.large_string()),
            r"text 0: not UTF-8: .* \(byte 1\)",
        ),
    ],
)
def test_encoder_of_a_text_that_is_none_says_which(
    encoder: RecordEncoder, texts: pa.Array, message: str
) -> None:
    with pytest.raises(TextError, match=message):
        encoder.encode(texts)


def test_encoder_of_no_texts_gives_nothing(encoder: RecordEncoder) -> None:
    encoded = encode_all(encoder, [])
    assert len(encoded.ids_T) == len(encoded.num_tokens_D) == encoded.num_control_texts == 0


def test_encoder_of_part_of_a_column_gives_that_part(encoder: RecordEncoder) -> None:
    texts = ["one", "<think>", "", "two words", EOD, "last"]
    whole = documents(encode_all(encoder, texts))
    part = encoder.encode(pa.array(texts, pa.large_string()).slice(1, 3))
    assert documents(part) == whole[1:4]
    assert part.num_control_texts == 1


def test_encoder_refuses_a_text_that_gigatoken_encodes_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a regex gigatoken 0.10.0 still splits words; the probes, which see it, are left out.
    monkeypatch.setattr(plain_encoders, "PROBES", ("a",))
    content = json.loads(trained().to_str())
    content["pre_tokenizer"]["use_regex"] = False
    encoder = RecordEncoder(saved(content, tmp_path), EOD, "gigatoken")
    texts = pa.array(["a", "b", "def double(number):\n    return"], pa.large_string())
    spans = pa.array([[], [], []], pa.list_(pa.int64()))
    with pytest.raises(TextError, match=r"text 2: gigatoken encodes it unlike.*backend=huggingf"):
        encoder.encode(texts, spans)


def test_encoder_without_the_eod_token_names_those_there_are(trained_path: Path) -> None:
    message = r"tokenizer\.json: tokenize\.eod_token='</s>' is not one of .*<\|endoftext\|>"
    with pytest.raises(ValueError, match=message):
        RecordEncoder(trained_path, "</s>")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b'{"model": ',
        b"[]",
        b'{"model_type": "qwen3"}',
        b'{"added_tokens": [{"id": 0, "content": "<|endoftext|>"}], "model": {}}',
    ],
)
def test_encoder_of_a_file_that_is_no_tokenizer_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer\.json"):
        RecordEncoder(path, EOD)


def test_tokenizer_file_is_the_file_itself_or_the_one_in_a_folder(trained_path: Path) -> None:
    assert tokenizer_file(trained_path) == trained_path
    assert tokenizer_file(trained_path.parent) == trained_path


@pytest.mark.parametrize("name", ["", "gone", "gone/tokenizer.json"])
def test_tokenizer_file_that_is_not_there_says_what_is_expected(tmp_path: Path, name: str) -> None:
    (tmp_path / "vocab.txt").write_text("slow")
    with pytest.raises(FileNotFoundError, match=r"no such file\. tokenize\.tokenizer must name"):
        tokenizer_file(tmp_path / name)


def test_trained_tokenizer_of_the_same_texts_is_the_same_in_every_process() -> None:
    command = [sys.executable, "-c", TRAIN_ELSEWHERE, json.dumps(TRAINED_ON)]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert trained().to_str() == trained().to_str() == elsewhere.removesuffix("\n")


@given(text=st.text())
def test_trained_tokenizer_encodes_bytes_it_never_saw(text: str) -> None:
    assume(not any(token in text for token in CONTROL_TOKENS))
    tokenizer = train_byte_level_bpe(["only this"], 300)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
