from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import FAIL, PASS, bits, verdict, write_entry

from mira_megatron.eval.comparison.outputs import read_evaluation
from mira_megatron.eval.comparison.protocol import NOT_RECORDED
from mira_megatron.eval.verdicts import Status


def change(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **fields}))


def test_an_evaluation_is_read_with_tasks_clusters_and_every_sample(tmp_path: Path) -> None:
    statuses = {"a": [PASS, FAIL], "b": [Status.NO_CODE, Status.INFRA]}
    clusters = {"a": "db1", "b": "db1"}
    write_entry(tmp_path, "spider", {"spider": statuses}, clusters=clusters, left_out=["c"])
    found = read_evaluation(tmp_path).outcomes["spider"]
    assert found.statuses == {"a": (PASS, FAIL), "b": (Status.NO_CODE, Status.INFRA)}
    assert found.clusters == clusters
    assert found.fractions == {"a": 0.5, "b": 0.0}
    assert found.is_subset
    assert found.protocol.samples == "2"
    assert found.protocol.template == NOT_RECORDED


def test_one_graded_benchmark_is_an_evaluation_of_its_own(tmp_path: Path) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": bits("110"), "mbpp_plus": bits("100")})
    found = read_evaluation(place)
    assert list(found.outcomes) == ["mbpp", "mbpp_plus"]
    assert not found.outcomes["mbpp"].is_subset


def test_a_verdict_for_some_tasks_only_makes_a_smaller_benchmark(tmp_path: Path) -> None:
    hard = {"t1": [PASS]}
    write_entry(tmp_path, "bcb", {"bigcodebench_full": bits("110"), "bigcodebench_hard": hard})
    found = read_evaluation(tmp_path).outcomes
    assert list(found["bigcodebench_hard"].statuses) == ["t1"]
    assert len(found["bigcodebench_full"].statuses) == 3


def test_verdicts_of_earlier_programs_and_graders_do_not_count(tmp_path: Path) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": bits("10")})
    others = [
        verdict("mbpp", "t0", 0, FAIL, "another program"),
        verdict("mbpp", "t0", 0, FAIL, "t0-0", grader="g/0"),
        verdict("mbpp", "t9", 0, PASS, "t9-0"),
    ]
    with (place / "verdicts.jsonl").open("ab") as file:
        file.write(b"".join(each.to_line() for each in others))
    assert read_evaluation(tmp_path).outcomes["mbpp"].fractions == {"t0": 1.0, "t1": 0.0}


def test_a_program_graded_again_counts_as_last_graded(tmp_path: Path) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": {"t0": [PASS]}})
    path = place / "verdicts.jsonl"
    infra = verdict("mbpp", "t0", 0, Status.INFRA, "t0-0").to_line()
    path.write_bytes(infra + path.read_bytes())
    assert read_evaluation(tmp_path).outcomes["mbpp"].statuses == {"t0": (PASS,)}


def test_a_torn_last_line_is_left_alone(tmp_path: Path) -> None:
    path = write_entry(tmp_path, "mbpp", {"mbpp": bits("10")}) / "verdicts.jsonl"
    content = path.read_bytes() + b'{"benchmark": "mb'
    path.write_bytes(content)
    assert len(read_evaluation(tmp_path).outcomes["mbpp"].statuses) == 2
    assert path.read_bytes() == content


def test_files_of_two_runs_are_refused(tmp_path: Path) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": bits("110")})
    path = place / "verdicts.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(ValueError, match=r"over 3 tasks, but verdicts.jsonl gives 100.0000 over 2"):
        read_evaluation(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="gives no verdict over 0"):
        read_evaluation(tmp_path)


def test_how_a_model_was_asked_is_part_of_the_protocol(tmp_path: Path) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": bits("10")})
    before = read_evaluation(tmp_path).outcomes["mbpp"].protocol
    (tmp_path / "suite.json").write_text(json.dumps({"style": "chat"}))
    asked = {"template": ["chat/2"], "sampling": ["temperature=0.0", "temperature=1.0"]}
    change(place / "results.json", asked=asked)
    found = read_evaluation(tmp_path).outcomes["mbpp"].protocol
    assert (found.style, found.template) == ("chat", "chat/2")
    assert found.sampling == "temperature=0.0, temperature=1.0"
    assert found.fingerprint != before.fingerprint
    assert len(found.fingerprint) == 12


def test_settings_and_all_data_files_are_part_of_the_protocol(tmp_path: Path) -> None:
    place = write_entry(tmp_path, "livecodebench", {"livecodebench": bits("10")})
    changes: list[dict[str, object]] = [
        {"options": {"release": "v6"}},
        {"options": {"release": "v5"}},
        {"facts": {"sqlite": "3.40.1"}},
        {"data": {"sha256": {"test.jsonl": "a", "test2.jsonl": "b"}}},
        {"data": {"sha256": {"test.jsonl": "a", "test2.jsonl": "c"}}},
    ]
    fingerprints = set()
    for each in changes:
        change(place / "results.json", **each)
        protocol = read_evaluation(tmp_path).outcomes["livecodebench"].protocol
        fingerprints.add(protocol.fingerprint)
    assert len(fingerprints) == len(changes)
    settings = {"python": "/venv/bin/python", "release": "v5"}
    facts = {"sqlite": "3.40.1", "rates": {"pred_error": 3.0}}
    change(place / "results.json", options=settings, facts=facts)
    assert read_evaluation(tmp_path).outcomes["livecodebench"].protocol == protocol


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", "[]", r"results.json: list, expected an object"),
        ("results.json", "{", r"results.json: not JSON"),
        ("results.json", "{}", r"results.json: grader is None"),
        ("results.json", '{"grader": "g/1"}', r"results.json: no scores"),
        ("tasks.jsonl", "{}\n", r"tasks.jsonl:1: no task"),
        ("tasks.jsonl", "", r"tasks.jsonl: no tasks"),
        ("verdicts.jsonl", "x\n", r"verdicts.jsonl:1: no verdict"),
        ("suite.json", "[]", r"suite.json: list, expected an object"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": bits("10")})
    (tmp_path if name == "suite.json" else place).joinpath(name).write_text(content)
    with pytest.raises(ValueError, match=said):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("name", ["tasks.jsonl", "verdicts.jsonl"])
def test_a_missing_file_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": bits("10")})
    (place / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file; grade again"):
        read_evaluation(tmp_path)


def test_results_without_what_a_comparison_needs_are_refused(tmp_path: Path) -> None:
    place = write_entry(tmp_path, "mbpp", {"mbpp": bits("10")})
    change(place / "results.json", data={})
    with pytest.raises(ValueError, match=r"data\.sha256 is None"):
        read_evaluation(tmp_path)
    change(place / "results.json", data={"sha256": "0"}, asked={"template": "chat/2"})
    with pytest.raises(ValueError, match=r"asked\.template is 'chat/2', expected a list"):
        read_evaluation(tmp_path)
    change(place / "results.json", asked=None, scores={"mbpp": {"pass@1": 50.0}})
    with pytest.raises(ValueError, match=r"scores.mbpp lacks 'num_tasks'"):
        read_evaluation(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither results\.json nor"):
        read_evaluation(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_evaluation(tmp_path / "nowhere")


def test_a_benchmark_that_two_entries_give_is_refused(tmp_path: Path) -> None:
    for entry in ("mbpp", "mbpp_again"):
        write_entry(tmp_path, entry, {"mbpp": bits("10")})
    with pytest.raises(ValueError, match="mbpp is also in mbpp"):
        read_evaluation(tmp_path)
