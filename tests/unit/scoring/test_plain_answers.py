"""Segments of a journal that this process wrote, beside those that are read line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.scoring.plain_answers import plain_answers
from mira_megatron.scoring.segment_files import SCHEMA, make_segment, segment_files
from mira_megatron.scoring.stored_answer import (
    Charged,
    Charges,
    Sent,
    StoredAnswer,
    answer_line,
    ended_line,
    sent_line,
)

_TEXTS = st.one_of(st.none(), st.text(max_size=20), st.sampled_from(["\0", '"\\', "\u2028", "😀"]))
_COUNTS = st.one_of(st.none(), st.integers(0, 1 << 40))
_ANSWERS = st.builds(
    StoredAnswer,
    key=st.binary(min_size=16, max_size=16).map(bytes.hex),
    model=st.sampled_from(["m", "n", "ü"]),
    charged=st.builds(
        Charged,
        num_prompt_tokens=st.integers(0, 1 << 40),
        num_output_tokens=st.integers(-5, 1 << 40),
    ),
    text=_TEXTS,
    reasoning=_TEXTS,
    finish_reason=_TEXTS,
    num_prompt_tokens=_COUNTS,
    num_output_tokens=_COUNTS,
    failure=_TEXTS,
    failure_detail=_TEXTS,
)
_ANSWER = StoredAnswer(
    key="0" * 32,
    model="m",
    charged=Charged(num_prompt_tokens=4, num_output_tokens=2),
    text="t",
    reasoning=None,
    finish_reason="stop",
    num_prompt_tokens=4,
    num_output_tokens=2,
    failure=None,
    failure_detail=None,
)


def _segment(lines: Sequence[bytes], *, is_own: bool) -> bytes:
    """Returns the bytes of the segment of a journal."""
    with TemporaryDirectory() as folder:
        journal = Path(folder, "j.jsonl")
        journal.write_bytes(b"".join(lines))
        Path(folder, "segments").mkdir()
        with journal.open("rb") as file:
            make_segment(journal, file, is_own=is_own)
        assert not journal.exists()
        (segment,) = segment_files(Path(folder))
        return segment.read_bytes()


@settings(deadline=None)
@given(st.lists(_ANSWERS, min_size=1, max_size=6))
def test_plain_answers_are_the_rows_and_charges_of_their_lines(answers: list[StoredAnswer]) -> None:
    charges, expected = Charges(), Charges()
    table = plain_answers(list(map(answer_line, answers)), charges, SCHEMA)
    assert table is not None
    assert table.schema == SCHEMA
    assert table.to_pylist() == list(map(_row, answers))
    for answer in answers:
        expected.add(answer.model, answer.charged)
    assert charges.by_model == expected.by_model


def _row(answer: StoredAnswer) -> dict[str, object]:
    return {
        "key": bytes.fromhex(answer.key),
        "model": answer.model,
        "charged_prompt_tokens": answer.charged.num_prompt_tokens,
        "charged_output_tokens": answer.charged.num_output_tokens,
        "text": answer.text,
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
        "num_prompt_tokens": answer.num_prompt_tokens,
        "num_output_tokens": answer.num_output_tokens,
        "failure": answer.failure,
        "failure_detail": answer.failure_detail,
        "odds": None,
        "first_top": None,
    }


def test_segment_of_an_own_journal_has_the_same_bytes_in_the_same_groups(tmp_path: Path) -> None:
    other = replace(_ANSWER, model="ü", text="\0 😀", num_prompt_tokens=None, failure="refused")
    lines = [answer_line(_ANSWER), answer_line(other)] * 550
    content = _segment(lines, is_own=True)
    assert content == _segment(lines, is_own=False)
    (tmp_path / "s.parquet").write_bytes(content)
    metadata = pq.read_metadata(tmp_path / "s.parquet")
    assert [metadata.row_group(group).num_rows for group in range(3)] == [512, 512, 76]
    assert metadata.metadata[b"charged"] == (
        b'{"m":{"num_prompt_tokens":2200,"num_output_tokens":1100},'
        b'"\xc3\xbc":{"num_prompt_tokens":2200,"num_output_tokens":1100}}'
    )


@pytest.mark.parametrize("num_before", [0, 600])
def test_segment_of_an_own_journal_holds_what_stands_among_lines_that_are_no_answers(
    num_before: int,
) -> None:
    most = Charged(num_prompt_tokens=90, num_output_tokens=90)
    sent = [sent_line(number, Sent("m", most)) for number in (0, 1)]
    lines = [answer_line(_ANSWER)] * num_before
    lines += [*sent, answer_line(_ANSWER), ended_line(0), answer_line(_ANSWER)]
    assert _segment(lines, is_own=True) == _segment(lines, is_own=False)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(answer_line(_ANSWER)[:-1], id="cut before its end"),
        pytest.param(answer_line(_ANSWER)[:40] + b"\n", id="cut"),
        pytest.param(sent_line(0, Sent("m", Charged())), id="sent"),
        pytest.param(ended_line(0), id="ended"),
        pytest.param(
            answer_line(_ANSWER).replace(b'"odds":null', b'"odds":[{"slot":1}]'), id="odds"
        ),
        pytest.param(
            answer_line(_ANSWER).replace(b'"first_top":null', b'"first_top":[["1",-0.5]]'),
            id="first token",
        ),
        pytest.param(answer_line(_ANSWER).replace(b'"m"', b"null"), id="no model"),
        pytest.param(answer_line(_ANSWER).replace(b"}", b',"more":1}'), id="a field more"),
        pytest.param(answer_line(_ANSWER).replace(b":4", b":4.5"), id="half a token"),
    ],
)
def test_plain_answers_of_any_other_line_are_none_and_charge_nothing(line: bytes) -> None:
    charges = Charges()
    assert plain_answers([answer_line(_ANSWER), line], charges, SCHEMA) is None
    assert charges.by_model == {}
