from dataclasses import replace
from pathlib import Path

import pytest

from mira_megatron.manifest import Counts
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit
from mira_megatron.training.bridge_group import GroupFolders, data_folders, link_data


def write_samples(workspace: Workspace, text: str) -> WorkResult:
    """Writes what the stage `sft-data` leaves."""
    for name in ("training.jsonl", "validation.jsonl"):
        (workspace.folder / name).write_text(text)
    return WorkResult(counts=Counts(num_in=2, num_out=2))


def with_samples(run_folder: Path, text: str) -> GroupFolders:
    """Returns the folders of a group whose samples are `text`."""
    folders = GroupFolders(run_folder=run_folder, rubric="r", group="g")
    unit = Unit(
        stage="sft-data",
        name="g",
        folder="sft/r/g",
        version=1,
        config={},
        raw_inputs={"text": text},
        work=f"{__name__}:write_samples",
        settings=text,
    )
    run_unit(unit, Run(folder=run_folder), Resources())
    return folders


def named(folders: GroupFolders) -> tuple[Path, ...]:
    return (folders.data, folders.checkpoints, folders.tensorboard, folders.export)


def test_bridge_folders_are_those_of_the_samples_they_were_made_from(tmp_path: Path) -> None:
    folders = with_samples(tmp_path, "one")
    first = named(folders)
    assert first == named(folders)
    assert {path.parent for path in first} == {folders.work} == {tmp_path / "bridge/r/g"}
    assert len({path.name.rpartition("-")[2] for path in first}) == 1
    assert [path.name.rpartition("-")[0] for path in first] == [
        *("data", "checkpoints", "tensorboard", "hf")
    ]
    assert not set(first) & set(named(with_samples(tmp_path, "two")))
    assert folders.base == folders.work / "base"  # the base's weights know no samples


def test_bridge_data_is_linked_once_and_keeps_what_was_packed(tmp_path: Path) -> None:
    folders = with_samples(tmp_path, "one")
    linked = link_data(folders)
    (linked / "packed").mkdir()
    assert link_data(folders) == linked == folders.data
    assert (linked / "training.jsonl").samefile(folders.sft / "training.jsonl")
    assert {path.name for path in linked.iterdir()} == {
        *("training.jsonl", "validation.jsonl", "packed")
    }
    link_data(with_samples(tmp_path, "two"))
    assert len(data_folders(folders)) == 2
    assert (folders.data / "training.jsonl").read_text() == "two"


def test_bridge_folders_without_samples_say_how_to_make_them(tmp_path: Path) -> None:
    folders = GroupFolders(run_folder=tmp_path, rubric="r", group="g")
    message = rf"{tmp_path}/sft/r/g: no finished SFT data of group g .*`mira sft-data`"
    with pytest.raises(FileNotFoundError, match=message):
        link_data(folders)
    (tmp_path / "sft/r/h").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no finished SFT data of group h"):
        _ = replace(folders, group="h").export
