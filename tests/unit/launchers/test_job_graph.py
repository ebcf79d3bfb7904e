from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from eval_files import write_mbpp
from submitted_smoke import jobs_by_name, one_machine, smoke

from mira_megatron import layout
from mira_megatron.launchers.cluster import StageResources
from mira_megatron.launchers.job_file import Server
from mira_megatron.launchers.job_graph import PlannedJob, job_name
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources

SERVER = Server(commands=(("serve",),), health_urls=("http://127.0.0.1:8000/health",))
MODELS = ("a", "a.seed2", "b", "b.seed2", "mira_group", "mira_group.seed2")
SMALL = (
    'sources.modules.paths=["{stdlib}/json/*.py"]',
    'sources.questions.paths=["{stdlib}/json/*.py"]',
    'sources.traces.paths=["{stdlib}/random.py", "{stdlib}/heapq.py", "{stdlib}/difflib.py"]',
    *(f"sources.{name}.max_records=5" for name in ("modules", "questions", "traces")),
    "ingest.records_per_part=2",
)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its records; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("ingested") / "run"
    run_stages(smoke(folder, *SMALL), ["ingest"], Resources())
    return folder


def waits(jobs: dict[str, PlannedJob]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {name: (job.after_ok, job.after_any) for name, job in jobs.items()}


def test_graph_of_an_empty_run_has_every_stage_after_what_it_reads(tmp_path: Path) -> None:
    assert waits(jobs_by_name(smoke(tmp_path))) == {
        "ingest": ((), ()),
        "group": (("ingest",), ()),
        "discover": (("group",), ()),
        "anchor": (("discover",), ()),
        "label": (("anchor",), ()),
        "label-rest": (("anchor",), ("label",)),
        "sft-data": (("label-rest",), ()),
        "distill": (("sft-data",), ()),
        "reliability": (("label-rest",), ()),
        "reliability-rest": (("label-rest",), ("reliability",)),
        "score": (("anchor",), ()),
        "score-rest": (("anchor",), ("score",)),
        "aggregate": (("reliability-rest", "score-rest"), ()),
        "tokenize": (("ingest",), ()),
        "select": (("aggregate", "tokenize"), ()),
        "sensitivity": (("select",), ()),
        "blend": (("select",), ()),
        "midtrain-mira_group": (("blend",), ()),
        "instruct-data": (("tokenize",), ()),
        "instruct-sft-mira_group": (("midtrain-mira_group", "instruct-data"), ()),
        "report": (("distill", "sensitivity", "instruct-sft-mira_group"), ()),
    }


def test_distilled_scorer_is_waited_for_by_who_asks_it(tmp_path: Path) -> None:
    own = "score={engine: transformers, max_tokens: 256, answer_mode: expected}"
    jobs = jobs_by_name(smoke(tmp_path, own))
    assert jobs["score"].after_ok == jobs["reliability"].after_ok == ("distill",)


def test_table_of_arms_waits_for_the_end_of_what_it_reads_however_that_ended(
    tmp_path: Path,
) -> None:
    arms = "arms={a: {score: smoke, scope: group}, b: {score: smoke, scope: source}}"
    jobs = jobs_by_name(smoke(tmp_path, arms, "ablation={seeds: [1, 2]}"))
    assert waits(jobs)["ablation"] == (
        (),
        tuple(job_name("held-out", model) for model in MODELS),
    )
    # What it waits for still has to end well for whoever reads it.
    assert jobs["held-out-a"].after_ok == ("midtrain-a",)


def test_arms_are_trained_by_jobs_of_their_own_with_names_that_differ(tmp_path: Path) -> None:
    arms = "arms={Base: {score: smoke, scope: group}, base: {score: smoke, scope: source}}"
    jobs = jobs_by_name(smoke(tmp_path, arms))
    trained = {name: job.only for name, job in jobs.items() if job.stage == "midtrain"}
    assert trained == {
        "midtrain-.base": "Base",
        "midtrain-base": "base",
        "midtrain-mira_group": "mira_group",
    }
    assert set(jobs["report"].after_ok) >= {"instruct-sft-.base", "instruct-sft-base"}
    assert "midtrain-.base" in jobs["instruct-sft-.base"].after_ok


def test_array_has_as_many_elements_as_parts_are_missing_and_at_most_its_cap(
    ingested: Path, tmp_path: Path
) -> None:
    cluster = one_machine(array_cap=64, stages={"label": StageResources(elements=5)})
    # How many there will be is not known before there are records.
    assert jobs_by_name(smoke(tmp_path), cluster)["score"].elements == 64
    jobs = jobs_by_name(smoke(ingested, *SMALL), cluster)
    assert "ingest" not in jobs
    num_parts = len(list(ingested.glob("records/*/part-*.parquet")))
    assert num_parts > 5
    assert (jobs["score"].elements, jobs["label"].elements) == (num_parts, 5)
    assert jobs["score-rest"].elements == 0


def test_last_part_is_left_to_the_rest_alone(ingested: Path, tmp_path: Path) -> None:
    run_folder = shutil.copytree(ingested, tmp_path / "run")
    _, *others = sorted(run_folder.glob("records/*/part-*.parquet"))
    for part in others:
        scored = run_folder / layout.ratings("smoke", part.parent.name) / part.name
        scored.parent.mkdir(parents=True, exist_ok=True)
        scored.touch()
    jobs = jobs_by_name(smoke(run_folder, *SMALL))
    assert "score" not in jobs
    assert waits({"": jobs["score-rest"]}) == {"": (("anchor",), ())}
    assert jobs["aggregate"].after_ok == ("reliability-rest", "score-rest")


def test_stage_beside_its_server_is_one_job_on_all_gpus_of_its_nodes(tmp_path: Path) -> None:
    stages = {"label": StageResources(nodes=2)}
    cluster = one_machine(gpus_per_node=8, gpu="h200", servers={"label": SERVER}, stages=stages)
    jobs = jobs_by_name(smoke(tmp_path), cluster)
    assert "label-rest" not in jobs
    needs = jobs["label"].needs
    assert (needs.kind, needs.nodes, needs.gpus, needs.server) == ("serve", 2, 8, SERVER)
    assert jobs["sft-data"].after_ok == ("label",)


def test_engine_decides_the_gpus_of_an_element_and_those_its_cpus(tmp_path: Path) -> None:
    score = "score={engine: vllm, model_path: /model, tensor_parallel_size: 2, max_tokens: 9}"
    cluster = one_machine(gpus_per_node=8, gpu="h200", cpus_per_node=128)
    jobs = jobs_by_name(smoke(tmp_path, score), cluster)
    assert (jobs["score"].needs.gpus, jobs["score"].needs.cpus) == (2, 32)
    assert (jobs["ingest"].needs.gpus, jobs["ingest"].needs.cpus) == (0, 128)


def test_every_model_is_evaluated_by_a_job_with_the_gpus_of_its_engine(tmp_path: Path) -> None:
    write_mbpp(tmp_path / "mbpp.jsonl")
    entry = "kind: mbpp, category: c, file: mbpp.jsonl, protocol: p, sampling: greedy"
    (tmp_path / "suite.yaml").write_text(
        f"sampling: {{greedy: {{}}}}\nbenchmarks: {{mbpp: {{{entry}}}}}\n"
    )
    asked = f"suite: {tmp_path}/suite.yaml, data_folder: {tmp_path}, style: chat"
    arms = "arms={base: {score: smoke, scope: source}}"
    overrides = (arms, f"eval={{{asked}, engine: vllm, tensor_parallel_size: 2}}")
    cluster = one_machine(gpus_per_node=8, gpu="h200", cpus_per_node=128)
    jobs = jobs_by_name(smoke(tmp_path / "run", *overrides), cluster)
    found = {name: job for name, job in jobs.items() if job.stage == "eval"}
    assert waits(found) == {
        "eval-base": (("instruct-sft-base",), ()),
        "eval-mira_group": (("instruct-sft-mira_group",), ()),
    }
    for name, job in found.items():
        assert (job.only, job.needs.kind, job.elements) == (name[5:], "stage", 0)
        assert (job.needs.nodes, job.needs.gpus, job.needs.cpus) == (1, 2, 32)
    (tmp_path / "mbpp.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="the data file of mbpp is not there"):
        jobs_by_name(smoke(tmp_path / "run", *overrides), cluster)


DATAMAN = "method: dataman, temperature: 0, top_p: 1, max_tokens: 29"
LOSSES = "method: perplexity, model: m"


@pytest.mark.parametrize(
    ("entries", "gpus", "is_array"),
    [
        ("{a: {method: random}, b: {method: dsir, target_sources: [modules]}}", 0, False),
        (f"{{a: {{method: random}}, b: {{{LOSSES}}}}}", 1, False),
        (f"{{b: {{{DATAMAN}, engine: vllm, model_path: m, tensor_parallel_size: 4}}}}", 4, True),
        (f"{{b: {{{DATAMAN}, engine: endpoint, model: m, endpoints: [http://a/v1]}}}}", 0, True),
        (f"{{b: {{{DATAMAN}, engine: transformers, model_path: m}}, c: {{{LOSSES}}}}}", 1, True),
    ],
)
def test_baselines_have_the_gpus_of_their_models(
    tmp_path: Path, entries: str, gpus: int, is_array: bool
) -> None:
    cluster = one_machine(gpus_per_node=8, gpu="h200")
    arm = "arms={mira_group: {score: smoke, scope: group}, other: {score: b, scope: source}}"
    jobs = jobs_by_name(smoke(tmp_path, f"baselines={entries}", arm), cluster)
    assert jobs["baseline"].needs.gpus == gpus
    assert ("baseline-rest" in jobs) == is_array
    last = "baseline-rest" if is_array else "baseline"
    assert last in jobs["select"].after_ok


def test_array_of_a_baseline_has_as_many_elements_as_parts_are_missing(ingested: Path) -> None:
    entries = f"{{b: {{{DATAMAN}, engine: endpoint, model: m, endpoints: [http://a/v1]}}}}"
    jobs = jobs_by_name(smoke(ingested, *SMALL, f"baselines={entries}"), one_machine(array_cap=64))
    num_parts = len(list(ingested.glob("records/*/part-*.parquet")))
    assert jobs["baseline"].elements == num_parts


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        (StageResources(nodes=2), "a process of this stage has one node"),
        (StageResources(gpus=9), "score needs 9 GPUs on a node, which has 8"),
    ],
)
def test_more_than_a_stage_can_use_or_a_node_has_is_refused(
    tmp_path: Path, resources: StageResources, told: str
) -> None:
    cluster = one_machine(gpus_per_node=8, gpu="h200", stages={"score": resources})
    with pytest.raises(ValueError, match=told):
        jobs_by_name(smoke(tmp_path), cluster)


def test_unit_made_with_other_settings_is_refused_before_anything_is_sent(ingested: Path) -> None:
    with pytest.raises(ValueError, match="was made with other settings"):
        jobs_by_name(smoke(ingested, *SMALL, "ingest.records_per_part=3"))
