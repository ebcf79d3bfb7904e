from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mira_megatron.launchers.cluster import load_cluster, seconds_of

CLUSTER = """
name: here
partition: gpu
account: lab-1
gpus_per_node: 8
cpus_per_node: 96
gpu: h200
time_limits: {stage: "04:00:00", gpu: "12:00:00", serve: "12:00:00", train: "2-00:00:00"}
container_runtime: pyxis
containers: {default: /images/mira.sqsh, midtrain: "nvcr.io#nvidia/nemo:26.02"}
commands: {score: [/opt/venv/bin/mira]}
mounts: ["/data:/data:ro", /runs]
environment: [TEACHER_KEY]
extra_sbatch: [--exclusive, "--constraint=a&b"]
stages: {score: {gpus: 1, elements: 32, time: "06:00:00"}}
servers:
  label: {commands: [[vllm, serve, /models/T]], health_urls: ["http://127.0.0.1:8000/health"]}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return path


def test_cluster_tells_each_stage_its_own_or_what_all_have(tmp_path: Path) -> None:
    cluster = load_cluster(written(tmp_path, CLUSTER))
    assert (cluster.image("midtrain"), cluster.image("score")) == (
        *("nvcr.io#nvidia/nemo:26.02", "/images/mira.sqsh"),
    )
    assert (cluster.command("score"), cluster.command("label")) == (
        *(("/opt/venv/bin/mira",), ("mira",)),
    )
    assert (cluster.time_limit("score", "gpu"), cluster.time_limit("distill", "train")) == (
        *("06:00:00", "2-00:00:00"),
    )
    assert (cluster.resources("score").elements, cluster.resources("label").elements) == (32, None)
    assert cluster.mounts == ("/data:/data:ro", "/runs")
    assert cluster.servers["label"].commands == (("vllm", "serve", "/models/T"),)
    assert cluster.servers["label"].ready_seconds == 1800


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partitions: gpu", "unknown key 'partitions'. Did you mean 'partition'?"),
        ("stages: {scores: {gpus: 1}}", "stages: unknown name 'scores'. Did you mean 'score'?"),
        ("stages: {score: {gpu: 1}}", "stages.score: unknown key 'gpu'. Did you mean 'gpus'?"),
        ("stages: {score: {gpus: -1}}", "gpus=-1 must be at least 0"),
        ("stages: {score: {time: 5h}}", "time='5h' is no time limit"),
        ("stages: {score: {time: '00:00:30'}}", "must be longer than requeue_signal_seconds=300"),
        ("gpu: a100", "gpu='a100' must be one of h200, h100"),
        ("container_runtime: docker", "must be one of pyxis, apptainer, none"),
        ("container_runtime: none", "containers and mounts need a container_runtime"),
        ("array_cap: 0", "array_cap=0 must be at least 1"),
        ("array_cap: 1.5", "array_cap=1.5 must be a whole number"),
        ("time_limits: {stage: '01:00:00'}", "time_limits needs gpu, serve, train"),
        ("time_limits: {cpu: '01:00:00'}", "unknown name 'cpu'"),
        ("account: 'a b'", "account='a b' must be letters"),
        ('account: "a\\n#SBATCH --uid=0"', "must be letters"),
        ("account: $(id)", "must be letters"),
        ("qos: --uid=0", "must be letters"),
        ('reservation: "a\'b"', "must be letters"),
        ("extra_sbatch: ['--comment=a b']", "an option of sbatch's"),
        ('extra_sbatch: ["--comment=a\\nb"]', "an option of sbatch's"),
        ("extra_sbatch: [-x]", "an option of sbatch's"),
        ("extra_sbatch: [--array=1-9]", "--array is written by mira submit"),
        ("extra_sbatch: [--no-requ]", "--no-requeue is written by mira submit"),
        ("extra_sbatch: [--arr=1-9]", "--array is written by mira submit"),
        ("extra_sbatch: [--ou=x]", "--output is written by mira submit"),
        ("extra_sbatch: [--gpus=1]", "--gpus-per-node is written by mira submit"),
        ("extra_sbatch: [--clusters=b]", "--clusters is written by mira submit"),
        ("extra_sbatch: [--test-only]", "--test-only is written by mira submit"),
        ("environment: ['A=$(id)']", "must be the name of a variable"),
        ("mounts: ['/a:/b,/c']", "without commas"),
        ("mounts: [a]", "must be /path"),
        ('mounts: ["/a\\nb"]', "control characters"),
        ('containers: {default: "a\\nb"}', "control characters"),
        ("commands: {default: mira}", "must be a list of words"),
        ("commands: {default: []}", "must name a program"),
        ("servers: {label: {commands: []}}", "servers.label: health_urls=None must be a list"),
    ],
)
def test_cluster_with_a_wrong_word_is_refused_by_file_and_key(
    tmp_path: Path, text: str, told: str
) -> None:
    path = written(tmp_path, yaml.safe_dump({**yaml.safe_load(CLUSTER), **yaml.safe_load(text)}))
    with pytest.raises(ValueError, match=r"cluster\.yaml") as refused:
        load_cluster(path)
    assert told in str(refused.value)
    assert str(refused.value).count("cluster.yaml") == 1


def test_options_that_only_look_like_those_of_mira_submit_are_taken(tmp_path: Path) -> None:
    options = ["--time-min=10", "--nodelist=node-1", "--wait-all-nodes=1", "--gres=gpu:8"]
    path = written(tmp_path, yaml.safe_dump({**yaml.safe_load(CLUSTER), "extra_sbatch": options}))
    assert load_cluster(path).extra_sbatch == tuple(options)


def test_cluster_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs gpus_per_node, cpus_per_node, gpu, time_limits"):
        load_cluster(written(tmp_path, "name: here"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_cluster(tmp_path / "none.yaml")


def test_time_without_quotes_is_refused_and_not_read_to_the_base_of_sixty(tmp_path: Path) -> None:
    text = CLUSTER.replace('"12:00:00"', "12:00:00")
    with pytest.raises(ValueError, match="write times in quotes"):
        load_cluster(written(tmp_path, text))


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("00:00:01", 1), ("04:30:00", 16_200), ("2-00:00:10", 172_810), ("100:00:00", 360_000)],
)
def test_time_limit_in_seconds(time: str, seconds: int) -> None:
    assert seconds_of(time, "time") == seconds


@pytest.mark.parametrize("time", ["", "1:00", "60", "00:00:00", "1:60:00", "-1:00:00", "1 day"])
def test_time_limit_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(ValueError, match="time="):
        seconds_of(time, "time")
