"""When a record is trained on: the trace turned round, and a reason where there is none."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_trace_samples import CODE, DOCUMENTS, HANDOVERS, MORE_WEB, WEB, blend_of
from traced_runs import (
    PlannedDocument,
    cached,
    planned,
    record_id,
    use_of_span,
    write_run,
)

from mira_megatron import layout
from mira_megatron.provenance.record_uses import RecordUse, uses
from mira_megatron.provenance.trace import trace
from mira_megatron.provenance.trace_printing import (
    print_trace,
    print_uses,
    trace_lines,
    uses_lines,
)
from mira_megatron.provenance.traced_training import TracedTraining
from mira_megatron.shards import write_parquet

pytestmark = pytest.mark.megatron


def traced_uses(training: TracedTraining, num_iterations: int) -> dict[str, list[RecordUse]]:
    """Returns the uses of every record, by tracing every iteration."""
    found = defaultdict(list)
    for iteration in range(1, num_iterations + 1):
        for sample in trace(training, iteration=iteration).samples:
            for span in sample.spans:
                found[span.record_id].append(use_of_span(sample, span))
    return found


@pytest.mark.parametrize("handover", HANDOVERS)
@settings(
    deadline=None,
    max_examples=6,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(documents=DOCUMENTS, epochs=st.integers(1, 3))
def test_uses_are_the_spans_of_all_iterations_turned_round(
    tmp_path_factory: pytest.TempPathFactory,
    handover: str,
    documents: list[PlannedDocument],
    epochs: int,
) -> None:
    folder = tmp_path_factory.mktemp("uses")
    training = write_run(folder, {"code": [documents]}, handover=handover)
    one_pass = (sum(each.num_tokens * each.times for each in documents) - 1) // 8
    training = replace(training, num_samples=one_pass * epochs)
    training = cached(training, folder / "cache", blend_of(training))
    whole = replace(training, global_batch_size=one_pass, data_parallel_size=1)
    # Of several epochs there may be more samples than were asked for.
    last = trace(whole, iteration=1).last_iteration
    assert last is not None
    traced = traced_uses(whole, last)
    for number, document in enumerate(documents):
        (found,) = uses(whole, record_id("code", number))
        key = [(use.sample, use.sample_start) for use in found.uses]
        assert key == sorted(key)
        assert list(found.uses) == traced[found.record_id]
        assert (found.never is None) == bool(found.uses)
        if not document.times:
            assert found.never == ("dropped" if document.num_tokens else "no_tokens")
        read = {
            token
            for use in found.uses
            for token in range(use.document_start, use.document_start + use.num_tokens)
        }
        assert found.num_tokens_unread == document.num_tokens - len(read)


@pytest.mark.parametrize(
    ("weights", "num_samples"), [(None, None), (None, 9), ([0.2, 0.3, 0.5], 40)]
)
@pytest.mark.parametrize("loader", ["single", "cyclic"])
def test_uses_in_a_blend_are_the_spans_turned_round(
    tmp_path: Path, weights: list[float] | None, num_samples: int | None, loader: str
) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB, MORE_WEB]}, weights=weights)
    training = replace(training, num_samples=num_samples)
    training = replace(
        cached(training, tmp_path / "cache", blend_of(training)),
        micro_batch_size=1,
        global_batch_size=4,
        data_parallel_size=2,
        dataloader_type=loader,
        train_iters=8 if loader == "cyclic" else None,
    )
    last = trace(training, iteration=1).last_iteration
    assert last is not None
    traced = traced_uses(training, last)
    ids = [record_id("code", number) for number in range(len(CODE))]
    ids += [record_id("web", number) for number in range(len(WEB) + len(MORE_WEB))]
    found = [each for record in ids for each in uses(training, record)]
    assert {each.record_id: list(each.uses) for each in found if each.uses} == dict(traced)
    assert sum(len(each.uses) for each in found) > 10


def test_record_never_trained_on_has_its_reason(tmp_path: Path) -> None:
    documents = [
        *planned(((20,), 1), ((6,), 0), ((), 1)),
        PlannedDocument((5,), times=0, is_validation=True),
    ]
    tiny = planned(((4,), 1))
    training = write_run(tmp_path, {"code": [documents], "small": [tiny], "web": [WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    wanted = [*(record_id("code", number) for number in range(4)), record_id("small", 0)]
    never = [uses(training, record)[0].never for record in wanted]
    assert never == [None, "dropped", "no_tokens", "held_out", "fills_no_sequence"]
    (dropped,) = uses(training, wanted[1])
    assert (dropped.num_tokens_unread, dropped.indices_from) == (6, None)
    assert (dropped.num_document_tokens, dropped.score) == (6, 0.25)


def test_record_in_the_tail_beyond_the_end_or_not_drawn_has_its_reason(tmp_path: Path) -> None:
    # 24 documents of a token: two samples share one, and seven are left for the tail.
    training = write_run(tmp_path, {"code": [planned(*(((1,), 1) for _ in range(24)))]})
    training = cached(training, tmp_path / "cache", blend_of(training))

    def reasons(training: TracedTraining) -> Counter[str | None]:
        ids = [record_id("code", number) for number in range(24)]
        return Counter(uses(training, each)[0].never for each in ids)

    assert reasons(training) == {None: 17, "tail": 7}
    assert reasons(replace(training, train_iters=1)) == {None: 9, "tail": 7, "not_reached": 8}
    assert reasons(replace(training, global_batch_size=3)) == {"tail": 7, "not_reached": 17}
    web = planned(*(((9,), 1) for _ in range(6)))
    few = write_run(tmp_path / "few", {"code": [CODE], "web": [web]})
    few = cached(replace(few, num_samples=3), tmp_path / "few_cache", blend_of(few))
    never = [uses(few, record_id("web", number))[0].never for number in range(6)]
    assert set(never) == {None, "not_drawn"}


def test_start_of_an_id_finds_its_records_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    found = uses(training, "wwww")
    assert [each.record_id for each in found] == [record_id("web", n) for n in range(4)]
    with pytest.raises(ValueError, match="no record's id is or begins with 'ffff' in code, web"):
        uses(training, "ffff")
    many = write_run(tmp_path / "many", {"code": [planned(*(((9,), 1) for _ in range(21)))]})
    with pytest.raises(ValueError, match="21 records' ids begin with 'cc'"):
        uses(many, "cc")
    with pytest.raises(ValueError, match="say how many train_iters"):
        uses(replace(training, dataloader_type="cyclic"), "wwww")


def test_whole_id_is_not_taken_for_the_start_of_its_repetitions(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"web": [planned(*(((9,), 1) for _ in range(3)))]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    (path,) = (tmp_path / layout.tokens("web")).glob("*.parquet")
    ids = pa.array(["abcd", "abcd-1", "abcd-2"])
    write_parquet(path, pq.read_table(path).set_column(0, "record_id", ids))
    assert [each.document for each in uses(training, "abcd")] == [0]
    assert [each.document for each in uses(training, "abcd-")] == [1, 2]


def test_traces_and_uses_are_printed_and_written_as_json_lines(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    traced = trace(training, iteration=2)
    lines = [json.loads(line) for line in trace_lines(traced)]
    (sample,) = traced.samples
    assert [line["record_id"] for line in lines] == [span.record_id for span in sample.spans]
    assert sum(line["num_tokens"] for line in lines) == 9
    assert {(line["iteration"], line["rank"], line["sample"]) for line in lines} == {(2, 0, 1)}
    records = uses(training, record_id("web", 1)) + uses(training, record_id("web", 2))
    written = [json.loads(line) for line in uses_lines(records)]
    assert len(written) == len(records[0].uses) + 1
    assert (written[-1]["never"], written[0]["never"]) == ("dropped", None)


def printed_lines(show: Callable[[Console, Any], None], found: Any) -> list[str]:
    """Returns what a narrow terminal is given, line by line."""
    text = io.StringIO()
    show(Console(file=text, width=80), found)
    return text.getvalue().splitlines()


def test_trace_in_a_narrow_terminal_has_a_whole_line_per_sample_and_span(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"a-source-of-code": [CODE], "web": [WEB]})
    training = replace(training, global_batch_size=4, num_samples=8)
    traced = trace(training, iteration=2)
    expected = [
        [f"{sample.micro_batch}/0/0", str(sample.sample), sample.spans[0].prefix]
        if span is None
        else [
            f"{span.sample_start}-{span.sample_start + span.num_tokens - 1}",
            f"{span.document_start}-{span.document_start + span.num_tokens - 1}",
            "n/a" if span.score is None else f"{span.score:.2f}",
            span.source,
            span.record_id,
        ]
        for sample in traced.samples
        for span in (None, *sample.spans)
    ]
    lines = printed_lines(print_trace, traced)
    assert lines[0] == "Iteration 2 of arm best, all ranks"
    assert lines[2].split() == ["in", "sample", "in", "document", "score", "source", "record"]
    assert [line.split() for line in lines[3 : 3 + len(expected)]] == expected
    starts = {
        line.index(span.record_id)
        for span in traced.samples[0].spans
        for line in lines
        if span.record_id in line
    }
    assert starts == {lines[2].index("record")}


def test_uses_in_a_narrow_terminal_have_a_whole_line_each(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB]})
    (read,) = uses(training, record_id("web", 1))
    lines = printed_lines(print_uses, [read])
    assert lines[0].startswith(f"{read.record_id} of web: document 1 of web, 30 tokens, score 0.25")
    assert lines[1] == f"{len(read.uses)} samples of arm best read it"
    use = read.uses[0]
    assert lines[3].split()[:3] == [str(use.iteration), f"{use.micro_batch}/0/0", str(use.sample)]
    assert len(lines) == 3 + len(read.uses) + bool(read.num_tokens_unread)
    assert "drops it" in printed_lines(print_uses, uses(training, record_id("web", 2)))[1]
