from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.server_metrics import MetricsWatch, ServerMetrics, parse_metrics

_PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1.5e+06
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 500000.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="m"} 5.0
"""


def _metrics(
    running: float = 1, waiting: float = 0, queried: float = 0, hit: float = 0
) -> ServerMetrics:
    return ServerMetrics(num_running=running, num_waiting=waiting, num_queried=queried, num_hit=hit)


def test_parse_metrics_sums_the_engines_of_a_server() -> None:
    assert parse_metrics(_PAGE) == _metrics(5, 7, 1_500_000, 500_000)


@pytest.mark.parametrize("page", ["", "<html>", "process_cpu_seconds_total 3.0\n"])
def test_parse_metrics_page_of_another_server_is_none(page: str) -> None:
    assert parse_metrics(page) is None


def test_parse_metrics_value_that_is_no_number_is_passed_over() -> None:
    page = _PAGE.replace("1.5e+06", "e+.").replace("500000.0", "NaN")
    assert parse_metrics(page) == _metrics(5, 7, 0, 0)


@given(st.text(max_size=60))
def test_parse_metrics_any_text_is_a_look_or_none(page: str) -> None:
    found = parse_metrics(page + _PAGE)
    assert found is not None
    assert found.num_running >= 5
    parse_metrics(page)


def test_metrics_watch_counts_hits_over_the_run_only() -> None:
    watch = MetricsWatch()
    watch.add(_metrics(queried=1000, hit=900), has_work=True)
    assert (watch.num_queried, watch.num_hit) == (0, 0)
    watch.add(_metrics(queried=1400, hit=1000), has_work=True)
    assert (watch.num_queried, watch.num_hit) == (400, 100)


def test_metrics_watch_server_that_was_restarted_counts_from_nothing() -> None:
    watch = MetricsWatch()
    watch.add(_metrics(queried=1000, hit=900), has_work=True)
    watch.add(_metrics(queried=300, hit=200), has_work=True)
    watch.add(_metrics(queried=400, hit=200), has_work=True)
    assert (watch.num_queried, watch.num_hit) == (400, 200)


def test_metrics_watch_idle_is_where_nothing_runs_or_waits_though_there_is_work() -> None:
    watch = MetricsWatch()
    watch.add(_metrics(running=0), has_work=False)
    watch.add(_metrics(running=0), has_work=True)
    watch.add(_metrics(running=0, waiting=1), has_work=True)
    watch.add(_metrics(running=2), has_work=True)
    assert (watch.num_idle_looks, watch.num_looks) == (1, 3)


def test_metrics_watch_queue_counts_only_when_it_stays() -> None:
    watch = MetricsWatch()
    seen = []
    for waiting in (1, 1, 0, 1, 1, 1, 1, 0):
        watch.add(_metrics(waiting=waiting), has_work=True)
        seen.append(watch.is_queueing)
    assert seen == [False, False, False, False, False, True, True, False]


def test_metrics_watch_server_without_metrics_is_not_looked_at_again() -> None:
    watch = MetricsWatch()
    watch.add(None, has_work=True)
    assert (watch.is_there, watch.num_looks) == (False, 0)
