from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mira_megatron.atomic_files import link_relative, replacing, write_bytes, write_json


def test_file_being_written_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "part"
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_file_whose_writing_failed_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "part"
    write_bytes(path, b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    def fill() -> None:
        with replacing(tmp_path / "part") as temporary:
            temporary.write_bytes(b"x")
            Path("/dev/full").write_bytes(b"x")

    with pytest.raises(OSError, match=r"part: no space left while writing") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_json_is_sorted_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "é",\n  "b": 1\n}\n'


def test_link_is_relative_and_can_be_made_again(tmp_path: Path) -> None:
    write_bytes(tmp_path / "tokens" / "a.bin", b"1")
    link = tmp_path / "blends" / "arm" / "a.bin"
    for _ in range(2):
        link_relative(tmp_path / "tokens" / "a.bin", link)
    assert str(link.readlink()) == "../../tokens/a.bin"
    assert link.read_bytes() == b"1"


def test_link_moves_with_what_lies_in_the_same_folder_and_no_other(tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    for folder in (run / "tokens", run / "blends", data):
        folder.mkdir(parents=True)
    (run / "tokens/a.bin").write_bytes(b"own")
    (data / "b.bin").write_bytes(b"adopted")
    link_relative(run / "tokens/a.bin", run / "blends/a.bin", within=run)
    link_relative(data / "b.bin", run / "blends/b.bin", within=run)
    (tmp_path / "elsewhere").mkdir()
    moved = run.rename(tmp_path / "elsewhere/run")
    assert (moved / "blends/a.bin").read_bytes() == b"own"
    assert (moved / "blends/b.bin").read_bytes() == b"adopted"
