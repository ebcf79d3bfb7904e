"""Instructions as prompts and completions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus import renderers
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.distill.chatml import END, render
from mira_megatron.distill.scorer_tokenizer import train_tokenizer
from mira_megatron.distill.sft_files import SftRow, read_rows
from mira_megatron.instruct.conversation_files import Told, file_conversations
from mira_megatron.training.instruct_rows import (
    InstructRows,
    _turns,
    read_instruct_rows,
    write_instruct_rows,
)

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a prime."},
    {"role": "assistant", "content": "Seven."},
    {"role": "user", "content": "Another."},
    {"role": "assistant", "content": "Eleven."},
]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(["a few words to make a vocabulary of"] * 20, 520, path)
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write(folder: Path, path: Path, tokenizer_file: Path, **changes: Any) -> InstructRows:
    settings = {"sequence_length": 400, "validation_fraction": 0.3, "seed": 1, **changes}
    return write_instruct_rows(folder, [path], tokenizer_file, **settings)


def all_rows(folder: Path) -> list[SftRow]:
    return [
        row for name in ("training", "validation") for row in read_rows(folder / f"{name}.jsonl")
    ]


def test_each_answer_is_one_row_with_all_before_it_as_its_prompt(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    pairs = [{"input": f"Say {number}.", "output": str(number)} for number in range(20)]
    path = write_lines(tmp_path / "a.jsonl", {"messages": CHAT}, *pairs)
    made = write(tmp_path / "rows", path, tokenizer_file)
    rows = {row.record_id: row for row in all_rows(tmp_path / "rows")}
    assert made.num_training + made.num_validation == len(rows) == 22
    assert (rows["a.jsonl:1.0"].input, rows["a.jsonl:1.0"].output) == (
        render(CHAT[:2]),
        f"Seven.{END}",
    )
    assert rows["a.jsonl:1.1"].input == render(CHAT[:4])
    assert rows["a.jsonl:2"].input == render([{"role": "user", "content": "Say 0."}])
    assert made.dropped == {}
    assert read_instruct_rows(tmp_path / "rows") == made


def test_turns_of_a_conversation_are_on_one_side(tmp_path: Path, tokenizer_file: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        *[{"messages": [*CHAT, {"role": "user", "content": str(n)}]} for n in range(30)],
    )
    write(tmp_path / "rows", path, tokenizer_file)
    lines = [
        {row.record_id.partition(".jsonl")[2].partition(".")[0] for row in read_rows(file)}
        for file in (tmp_path / "rows/training.jsonl", tmp_path / "rows/validation.jsonl")
    ]
    assert not lines[0] & lines[1]
    assert len(lines[0]) + len(lines[1]) == 30


def test_what_cannot_be_trained_on_is_left_out_and_counted(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    good = [{"input": f"Say {number}.", "output": "so"} for number in range(20)]
    path = write_lines(
        tmp_path / "a.jsonl",
        *good,
        {"input": f"End {END} early", "output": "so"},
        {"input": "Say", "output": "a<|im_start|>b"},
        {"input": "Say", "output": "word " * 900},
        {"input": "Say", "output": "  "},
        {"messages": CHAT[:2]},
    )
    made = write(tmp_path / "rows", path, tokenizer_file)
    assert made.dropped == {"control_token": 2, "no_answer": 2, "too_long": 1}
    assert len(all_rows(tmp_path / "rows")) == 20


def test_row_of_exactly_the_sample_s_length_stays(tmp_path: Path, tokenizer_file: Path) -> None:
    rows = [{"input": f"Say {number}", "output": "so"} for number in range(10, 30)]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    made = write(tmp_path / "rows", path, tokenizer_file)
    length = made.training_tokens // made.num_training
    again = write(tmp_path / "same", path, tokenizer_file, sequence_length=length)
    assert again == made
    with pytest.raises(ValueError, match=r"no row for training\.jsonl is left.*'too_long': 20"):
        write(tmp_path / "short", path, tokenizer_file, sequence_length=length - 1)
    assert not (tmp_path / "short/training.jsonl").exists()
    assert read_instruct_rows(tmp_path / "short") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expected messages with role and content, or input and output"),
        ("[1]", "not_an_object"),
        ('{"input": "a"}', "missing_field"),
        ('{"input": "a", "output": 1}', "wrong_type"),
        ('{"messages": [{"role": "nobody", "content": "a"}]}', "wrong_type .*role is none of"),
        ('{"messages": 5}', "wrong_type"),
    ],
)
def test_line_of_another_form_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"input": "a", "output": "b"}}\n\n{line}\n')
    with pytest.raises(ValueError, match=rf"a\.jsonl:3: .*{message}"):
        list(file_conversations(SourceFile(path=path, name=path.name)))


_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": st.sampled_from(["", " ", "a", "b"]),
        }
    ),
    max_size=6,
)


@given(messages=_MESSAGES)
def test_every_answer_is_learned_once_and_nothing_else(messages: list[dict[str, str]]) -> None:
    written = renderers.render("agent", {"messages": messages})
    told = Told(record_id="r", source="s", text=written.text, control_spans=written.control_spans)
    expected = [
        (render(messages[:index]), f"{message['content']}{END}")
        for index, message in enumerate(messages)
        if index and message["role"] == "assistant" and message["content"].strip()
    ]
    assert [(row.input, row.output) for row in _turns(told)] == expected


def test_turns_of_tools_are_read_and_calls_are_learned(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    chat = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "Two."},
    ]
    pairs = [{"input": f"Say {number}.", "output": "so"} for number in range(20)]
    write(
        tmp_path / "rows",
        write_lines(tmp_path / "a.jsonl", {"messages": chat}, *pairs),
        tokenizer_file,
    )
    rows = {row.record_id: row for row in all_rows(tmp_path / "rows")}
    assert rows["a.jsonl:1.0"].output.startswith('<tool_call>\n{"name": "add"')
    assert "<tool_response>\n2\n</tool_response>" in rows["a.jsonl:1.1"].input
    assert rows["a.jsonl:1.1"].output == f"Two.{END}"


def test_repeated_and_held_out_texts_are_on_neither_side(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    pairs = [{"input": f"Say {number}.", "output": "so"} for number in range(20)]
    path = write_lines(tmp_path / "a.jsonl", *pairs, pairs[3])
    told = list(file_conversations(SourceFile(path=path, name=path.name)))
    made = write(tmp_path / "rows", path, tokenizer_file, held_out={told[5].text_hash})
    assert made.dropped == {"duplicate": 1, "held_out": 1}
    assert "a.jsonl:6" not in {row.record_id for row in all_rows(tmp_path / "rows")}


def test_a_compressed_file_is_the_same_instructions(tmp_path: Path, tokenizer_file: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", *({"input": f"q{n}", "output": "a"} for n in range(20))
    )
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    plain, unpacked = (
        write(tmp_path / each.name.partition(".")[0], each, tokenizer_file)
        for each in (path, packed)
    )
    assert plain.num_training + plain.num_validation == 20
    assert unpacked.num_training + unpacked.num_validation == 20
