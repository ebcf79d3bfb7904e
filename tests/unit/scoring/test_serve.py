import shlex
import sys

import pytest

from mira_megatron.scoring.serve import ServedModel, ServeOptions, Server, run_servers, servers

MODEL = ServedModel(model="/runs/a b/hf", served_model_name="mira-v1-qa", max_model_len=4096)


def value(server: Server, option: str) -> str:
    return server.words[server.words.index(option) + 1]


def test_servers_throughput_is_one_per_gpu() -> None:
    found = servers(MODEL, ServeOptions(gpus=3, port=9000))

    assert [server.url for server in found] == [
        f"http://127.0.0.1:{port}/v1" for port in (9000, 9001, 9002)
    ]
    assert [server.environment["CUDA_VISIBLE_DEVICES"] for server in found] == ["0", "1", "2"]
    assert all("--tensor-parallel-size" not in server.words for server in found)
    assert value(found[0], "--max-model-len") == "4096"


def test_servers_published_is_one_over_eight_gpus() -> None:
    (server,) = servers(MODEL, ServeOptions(profile="published", gpus=8))

    assert value(server, "--tensor-parallel-size") == "8"
    assert value(server, "--max-model-len") == "65536"
    assert value(server, "--max-num-batched-tokens") == "131072"


def test_servers_line_is_safe_to_type() -> None:
    (server,) = servers(MODEL, ServeOptions(gpus=0, more=("--dtype", "float32")))

    words = shlex.split(server.line)
    assert words[0] == "VLLM_CPU_KVCACHE_SPACE=1"
    assert "/runs/a b/hf" in words
    assert words[-2:] == ["--dtype", "float32"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"profile": "fast"}, "--profile 'fast'"),
        ({"gpus": -1}, "--gpus -1"),
        ({"profile": "published", "gpus": 4}, "--gpus 4"),
        ({"port": 65535}, "--port 65535"),
    ],
)
def test_serve_options_wrong_value_is_refused(options: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ServeOptions(**options)  # type: ignore[arg-type]


def test_run_servers_one_that_ends_ends_the_others() -> None:
    sleeper = Server(words=(sys.executable, "-c", "import time; time.sleep(60)"), url="")
    failing = Server(words=(sys.executable, "-c", "raise SystemExit(3)"), url="")

    assert run_servers([sleeper, failing]) == 3
