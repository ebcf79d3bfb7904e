from __future__ import annotations

from mira_megatron.scoring.chat_request import EndpointSettings
from mira_megatron.scoring.endpoint_facts import Facts, endpoint_facts
from mira_megatron.scoring.endpoint_pool import PooledEndpoint
from mira_megatron.scoring.server_metrics import ServerMetrics

_SETTINGS = EndpointSettings(
    model="m",
    temperature=0.0,
    top_p=1.0,
    max_tokens=8,
    max_in_flight=4,
    timeout_seconds=5,
    max_retries=0,
)


def _facts(*endpoints: PooledEndpoint) -> Facts:
    return endpoint_facts(
        endpoints,
        num_retries={"timeout": 1, "http_503": 2},
        num_prompt_tokens=1200,
        num_output_tokens=300,
        now=10.0,
    )


def _endpoint(name: str, num_sent: int) -> PooledEndpoint:
    endpoint = PooledEndpoint(f"http://{name}/v1", _SETTINGS)
    endpoint.num_sent = num_sent
    return endpoint


def test_endpoint_facts_of_servers_without_metrics_say_nothing_of_them() -> None:
    facts = _facts(_endpoint("a", 7))
    assert (facts.cache_hit_fraction, facts.idle_fraction) == (None, None)
    assert facts.sentence() == (
        "7 requests; 1,200 prompt and 300 output tokens; retries: http_503 2, timeout 1"
    )


def test_endpoint_facts_add_up_servers_and_tell_their_states() -> None:
    a, b, c = _endpoint("a", 7), _endpoint("b", 2), _endpoint("c", 1)
    b.health.drain()
    c.paused_until = 11.0
    for endpoint, num_hit in ((a, 90), (b, 10)):
        for queried, hit in ((0, 0), (100, num_hit)):
            metrics = ServerMetrics(
                num_running=queried, num_waiting=0, num_queried=queried, num_hit=hit
            )
            endpoint.metrics.add(metrics, has_work=True)
    facts = _facts(a, b, c)
    assert [(each.url, each.state) for each in facts.endpoints] == [
        ("http://a/v1", "up"),
        ("http://b/v1", "out"),
        ("http://c/v1", "paused"),
    ]
    assert (facts.num_sent, facts.cache_hit_fraction, facts.idle_fraction) == (10, 0.5, 0.5)
    assert facts.sentence().endswith(
        "50% of prompt tokens from the prefix cache; servers idle 50% of the time; "
        "http://a/v1 7 (up); http://b/v1 2 (out); http://c/v1 1 (paused)"
    )
