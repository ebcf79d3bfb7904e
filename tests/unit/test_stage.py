from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mira_megatron.atomic_files import write_bytes
from mira_megatron.manifest import Counts, read_manifest
from mira_megatron.stage import (
    Resources,
    Run,
    Unit,
    WorkResult,
    Workspace,
    reparse_unit,
    run_unit,
    unit_state,
)

RESOURCES = Resources()


def write_two_parts(workspace: Workspace, settings: Any) -> WorkResult:
    """The work of the units below; told to fail, it stops between the parts as a kill would."""
    write_bytes(workspace.folder / "part-00000.bin", settings["content"])
    if settings.get("fails"):
        raise KeyboardInterrupt
    write_bytes(workspace.folder / "part-00001.bin", settings["content"])
    return WorkResult(counts=Counts(num_in=2, num_out=2), rows={"part-00000.bin": 1})


def unit(content: bytes = b"a", **changes: Any) -> Unit:
    made = Unit(
        stage="score",
        name="wiki",
        folder="ratings/wiki",
        version=1,
        config={"engine": {"name": "rule"}, "temperature": 0.5},
        work="test_stage:write_two_parts",
        settings={"content": content},
    )
    return replace(made, **changes)


def test_unit_run_twice_works_once(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    first = run_unit(unit(), run, RESOURCES)
    again = run_unit(unit(content=b"never written"), run, RESOURCES)
    assert again == first
    assert [part.path for part in first.parts] == ["part-00000.bin", "part-00001.bin"]
    assert first.parts[0].num_rows == 1
    assert unit_state(unit(), run) == "done"


def test_unit_with_another_setting_is_refused_naming_the_field(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run_unit(unit(), run, RESOURCES)
    changed = unit(config={"engine": {"name": "model"}, "temperature": 0.5})
    with pytest.raises(ValueError, match=r"score\.engine\.name was 'rule' and is 'model'"):
        run_unit(changed, run, RESOURCES)
    assert unit_state(changed, run) == "different"


def test_unit_of_another_stage_version_is_refused(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run_unit(unit(), run, RESOURCES)
    with pytest.raises(ValueError, match=r"stage_version was 1 and is 2"):
        run_unit(unit(version=2), run, RESOURCES)


def test_unit_interrupted_is_resumed_with_the_same_settings(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_unit(unit(settings={"content": b"a", "fails": True}), run, RESOURCES)
    assert read_manifest(tmp_path / "ratings/wiki") is None
    assert unit_state(unit(), run) == "unfinished"
    run_unit(unit(), run, RESOURCES)
    assert unit_state(unit(), run) == "done"
    assert not (tmp_path / "ratings/wiki/intent.json").exists()


def test_unit_interrupted_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_unit(unit(settings={"content": b"a", "fails": True}), run, RESOURCES)
    with pytest.raises(ValueError, match=r"score\.temperature was 0\.5 and is 1\.0"):
        run_unit(unit(config={"engine": {"name": "rule"}, "temperature": 1.0}), run, RESOURCES)
    assert (tmp_path / "ratings/wiki/part-00000.bin").read_bytes() == b"a"


def test_unit_whose_inputs_changed_is_remade_and_the_old_result_kept(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run_unit(unit(content=b"old", raw_inputs={"file": "1"}), run, RESOURCES)
    changed = unit(content=b"new", raw_inputs={"file": "2"})
    assert unit_state(changed, run) == "outdated"
    run_unit(changed, run, RESOURCES)
    (kept,) = (tmp_path / "ratings").glob("wiki.superseded-*")
    assert (kept / "part-00000.bin").read_bytes() == b"old"
    assert (tmp_path / "ratings/wiki/part-00000.bin").read_bytes() == b"new"


def test_unit_that_reads_a_unit_no_more_is_remade_and_raw_files_are_taken_as_they_were(
    tmp_path: Path,
) -> None:
    run = Run(folder=tmp_path)
    sources = ("tokens/a", "tokens/b")
    for folder in sources:
        run_unit(unit(folder=folder, stage="tokenize"), run, RESOURCES)
    reading = unit(folder="keep/arm", upstream=sources, raw_files=lambda: {"licence.csv": "1"})
    run_unit(reading, run, RESOURCES)
    without_files = replace(reading, raw_files=dict)
    assert unit_state(without_files, run) == "done"
    fewer = replace(reading, upstream=sources[:1])
    assert unit_state(fewer, run) == "outdated"
    assert list(run_unit(fewer, run, RESOURCES).inputs) == ["licence.csv", "tokens/a"]


def test_unit_read_again_and_set_aside_later_loses_neither_what_was_nor_what_came_of_it(
    tmp_path: Path,
) -> None:
    run = Run(folder=tmp_path)
    run_unit(unit(raw_inputs={"corpus": "1"}), run, RESOURCES)
    reparse_unit(unit(b"b", raw_inputs={"corpus": "1"}), run, RESOURCES)
    run_unit(unit(b"c", raw_inputs={"corpus": "2"}), run, RESOURCES)
    aside = sorted((tmp_path / "ratings").glob("wiki.superseded-*/part-00000.bin"))
    assert [path.read_bytes() for path in aside] == [b"a", b"b"]


def test_unit_with_a_part_missing_is_an_error_naming_it(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run_unit(unit(), run, RESOURCES)
    (tmp_path / "ratings/wiki/part-00000.bin").unlink()
    with pytest.raises(ValueError, match=r"part-00000\.bin: this part is missing.*1 bytes, 1 rows"):
        run_unit(unit(), run, RESOURCES)


def test_unit_whose_input_is_unfinished_says_which(tmp_path: Path) -> None:
    reader = unit(upstream=("records/wiki",))
    with pytest.raises(ValueError, match=r"records/wiki, which is not finished"):
        run_unit(reader, Run(folder=tmp_path), RESOURCES)


def test_unit_in_a_folder_of_unknown_files_is_refused(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ratings/wiki/stray.bin", b"whose?")
    with pytest.raises(ValueError, match=r"neither intent\.json nor a manifest"):
        run_unit(unit(), Run(folder=tmp_path), RESOURCES)


def test_unit_finished_in_a_reused_run_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    made = run_unit(unit(), Run(folder=earlier), RESOURCES)
    caplog.set_level(logging.INFO)
    taken = run_unit(unit(content=b"never"), Run(folder=later, reuse=(earlier,)), RESOURCES)
    assert taken == replace(made, reused_from=str(earlier / "ratings/wiki"))
    assert (later / "ratings/wiki/part-00001.bin").read_bytes() == b"a"


def test_unit_of_another_fingerprint_is_not_taken_over(tmp_path: Path) -> None:
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    run_unit(unit(), Run(folder=earlier), RESOURCES)
    other = unit(content=b"b", config={"temperature": 1.0})
    assert run_unit(other, Run(folder=later, reuse=(earlier,)), RESOURCES).reused_from is None
    assert (later / "ratings/wiki/part-00000.bin").read_bytes() == b"b"


def test_unit_worked_on_by_another_process_is_refused(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    with pytest.raises(ValueError, match="another process is working on score wiki"):
        run_unit(unit(work="test_stage:run_it_again", settings=run), run, RESOURCES)


def run_it_again(workspace: Workspace, settings: Run) -> WorkResult:
    """The work of a unit that meets a second process halfway."""
    run_unit(workspace.unit, settings, RESOURCES)
    raise AssertionError("the second run must be refused")


def test_unit_that_outlives_an_input_is_kept_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(folder=tmp_path)
    upstream = unit(name="early", folder="records/early")
    lasting = unit(upstream=("records/early",), outlives=("records/early",))
    run_unit(upstream, run, RESOURCES)
    first = run_unit(lasting, run, RESOURCES)
    changed = replace(upstream, raw_inputs={"file": "new"}, settings={"content": b"b"})
    run_unit(changed, run, RESOURCES)
    assert run_unit(lasting, run, RESOURCES) == first
    assert unit_state(lasting, run) == "done"
    assert "kept although records/early changed since" in caplog.text
    assert unit_state(replace(lasting, outlives=()), run) == "outdated"
