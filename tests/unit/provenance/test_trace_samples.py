"""Traced samples, token for token, beside what Megatron's own datasets give."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core import parallel_state
from token_datasets import VOCAB_SIZE, one_process
from traced_runs import (
    ARM,
    LENGTH,
    PlannedDocument,
    built_dataset,
    cached,
    ids_of_spans,
    planned,
    record_id,
    sample_ids,
    score_of,
    write_run,
)

from mira_megatron import layout
from mira_megatron.provenance.trace import trace
from mira_megatron.provenance.traced_training import TracedTraining
from mira_megatron.training.batches import Batches
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.schedule import TrainSettings

pytestmark = pytest.mark.megatron

HANDOVERS = ["index_view", "keep_mask_dataset", "physical_copy"]
DOCUMENTS = st.lists(
    st.builds(
        PlannedDocument,
        lengths=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        times=st.sampled_from([0, 1, 1, 1, 2]),
    ),
    min_size=2,
    max_size=25,
).filter(lambda documents: sum(each.num_tokens * each.times for each in documents) > 2 * LENGTH)

CODE = planned(((5,), 1), ((), 1), ((9, 4), 1), ((3,), 0), ((12,), 2), ((1,), 1), ((7, 0, 6), 1))
WEB = planned(((6,), 1), ((30,), 1), ((4,), 0), ((8,), 1))
MORE_WEB = planned(((11,), 1), ((2, 2, 2), 1), ((16,), 1))


def blend_of(training: TracedTraining) -> dict[str, Any]:
    path = training.run_folder / layout.blend(ARM) / layout.BLEND
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize("handover", HANDOVERS)
@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(documents=DOCUMENTS, epochs=st.integers(1, 3))
def test_spans_are_token_for_token_what_megatrons_dataset_gives(
    tmp_path_factory: pytest.TempPathFactory,
    handover: str,
    documents: list[PlannedDocument],
    epochs: int,
) -> None:
    folder = tmp_path_factory.mktemp("trace")
    training = write_run(folder, {"code": [documents]}, handover=handover)
    one_pass = (sum(each.num_tokens * each.times for each in documents) - 1) // LENGTH
    training = replace(training, num_samples=one_pass * epochs, cache_folder=folder / "cache")
    with one_process():
        dataset = built_dataset(training, blend_of(training))
    for number in range(len(dataset)):
        (sample,) = trace(training, iteration=number + 1).samples
        assert ids_of_spans(folder, sample.spans) == sample_ids(dataset[number])


@pytest.mark.parametrize("handover", HANDOVERS)
@pytest.mark.parametrize(
    ("weights", "num_samples"), [(None, None), (None, 9), (None, 500), ([0.2, 0.3, 0.5], 40)]
)
def test_spans_of_a_blend_are_those_of_megatrons_blend_cached_or_rebuilt(
    tmp_path: Path, handover: str, weights: list[float] | None, num_samples: int | None
) -> None:
    training = write_run(
        tmp_path, {"code": [CODE], "web": [WEB, MORE_WEB]}, handover=handover, weights=weights
    )
    training = replace(training, num_samples=num_samples, cache_folder=tmp_path / "cache")
    with one_process():
        dataset = built_dataset(training, blend_of(training))
    whole = replace(training, micro_batch_size=len(dataset), global_batch_size=len(dataset))
    from_cache = trace(whole, iteration=1)
    rebuilt = trace(replace(whole, cache_folder=None), iteration=1)
    assert from_cache.samples == rebuilt.samples
    assert "index cache" in from_cache.indices_from
    assert "Megatron's builder" in rebuilt.indices_from
    assert [sample.sample for sample in rebuilt.samples] == list(range(len(dataset)))
    for sample in rebuilt.samples:
        assert ids_of_spans(tmp_path, sample.spans) == sample_ids(dataset[sample.sample])


@pytest.mark.parametrize("ranks", [1, 2])
def test_traced_batches_are_those_our_trainer_trained_on(tmp_path: Path, ranks: int) -> None:
    training = replace(
        write_run(tmp_path, {"code": [CODE], "web": [WEB, MORE_WEB]}),
        micro_batch_size=2,
        global_batch_size=4,
        data_parallel_size=ranks,
    )
    train_settings = TrainSettings(
        sequence_length=LENGTH,
        micro_batch_size=2,
        global_batch_size=4,
        train_iters=None,
        learning_rate=1e-3,
        min_learning_rate=1e-4,
        warmup_iters=0,
        weight_decay=0.1,
        adam_beta1=0.9,
        adam_beta2=0.95,
        clip_grad=1.0,
        eval_interval=1,
        log_interval=1,
        seed=training.seed,
    )
    with megatron_process_group(), pytest.MonkeyPatch.context() as patch:
        cached_training = replace(training, cache_folder=tmp_path / "cache")
        dataset = built_dataset(cached_training, blend_of(training))
        batches = Batches(dataset, train_settings, VOCAB_SIZE)
        patch.setattr(parallel_state, "_MPU_DATA_PARALLEL_WORLD_SIZE", ranks)
        for iteration in range(1, len(dataset) // 4 + 1):
            for rank in range(ranks):
                patch.setattr(parallel_state, "_MPU_DATA_PARALLEL_RANK", rank)
                read = list(batches.between(4 * (iteration - 1), 4 * iteration))
                traced = trace(cached_training, iteration=iteration, rank=rank).samples
                assert {sample.rank for sample in traced} == {rank}
                for sample in traced:
                    tokens = read[sample.micro_batch].tokens_BS[sample.row].tolist()
                    assert ids_of_spans(tmp_path, sample.spans)[:-1] == tokens
                assert len(traced) == 2 * len(read)
    with pytest.raises(ValueError, match="is after the last"):
        trace(cached_training, iteration=len(dataset) // 4 + 1)


def test_whole_batch_is_the_batches_of_all_ranks_in_reading_order(tmp_path: Path) -> None:
    training = replace(
        write_run(tmp_path, {"code": [CODE], "web": [WEB, MORE_WEB]}),
        global_batch_size=6,
        data_parallel_size=3,
    )
    training = cached(training, tmp_path / "cache", blend_of(training))
    whole = trace(training, iteration=2).samples
    by_rank = [trace(training, iteration=2, rank=rank).samples for rank in range(3)]
    assert [(each.micro_batch, each.rank) for each in whole] == [
        (micro_batch, rank) for micro_batch in range(2) for rank in range(3)
    ]
    assert [sample.sample for sample in whole] == list(range(6, 12))
    assert {sample.sample: sample for samples in by_rank for sample in samples} == {
        sample.sample: sample for sample in whole
    }


def test_cyclic_loader_is_traced_through_its_shuffled_epochs(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"web": [WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    (one_pass,) = {len(trace(training, iteration=1).samples)}
    cyclic = replace(training, dataloader_type="cyclic")
    traces = [trace(cyclic, iteration=iteration) for iteration in range(1, 11)]
    samples = [each.samples[0].sample for each in traces]
    assert one_pass == 1
    assert sorted(samples[:5]) == sorted(samples[5:]) == list(range(5))
    assert samples[:5] != samples[5:]
    assert {each.last_iteration for each in traces} == {None}


def test_spans_name_record_source_document_and_score(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB, MORE_WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    whole = replace(training, micro_batch_size=10, global_batch_size=10)
    spans = [span for sample in trace(whole, iteration=1).samples for span in sample.spans]
    assert {(span.source, span.prefix) for span in spans} == {
        ("code", "code"),
        ("web", "web.0"),
        ("web", "web.1"),
    }
    for span in spans:
        record = span.document + (len(WEB) if span.prefix == "web.1" else 0)
        assert span.record_id == record_id(span.source, record)
        assert span.score == score_of(record)
        assert span.score_reason == ("unparsed" if span.score is None else None)
    told_nothing = trace(replace(whole, scoring=None), iteration=1)
    reasons = {span.score_reason for sample in told_nothing.samples for span in sample.spans}
    assert reasons == {"no_score"}


def test_scores_in_another_order_are_found_by_id(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"web": [WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    whole = replace(training, micro_batch_size=5, global_batch_size=5)
    in_order = trace(whole, iteration=1)
    first, second = sorted((tmp_path / layout.record_scores("quality", "web")).iterdir())
    first.rename(first.with_name("part-00002.parquet"))
    assert trace(whole, iteration=1) == in_order
    second.unlink()
    scores = {
        span.document: span.score_reason
        for sample in trace(whole, iteration=1).samples
        for span in sample.spans
    }
    assert scores == {0: None, 1: None, 3: "no_score"}


def test_view_is_traced_by_its_bytes_not_by_its_order(tmp_path: Path) -> None:
    documents = planned(*(((4, 3), 1) for _ in range(8)))
    training = write_run(tmp_path, {"code": [documents]})
    (view,) = (tmp_path / layout.blend(ARM)).glob("*.idx")
    content = bytearray(view.read_bytes())
    pointers = np.frombuffer(content, "<i8", 16, offset=34 + 4 * 16)
    assert pointers.tolist() == sorted(pointers.tolist())
    for first in (0, 1):  # sequences of equal length change places
        pointers[first::2] = pointers[first::2][::-1].copy()
    view.write_bytes(content)
    training = replace(training, cache_folder=tmp_path / "cache")
    with one_process():
        dataset = built_dataset(training, blend_of(training))
    for number in range(len(dataset)):
        (sample,) = trace(training, iteration=number + 1).samples
        assert ids_of_spans(tmp_path, sample.spans) == sample_ids(dataset[number])
