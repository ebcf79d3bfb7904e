from __future__ import annotations

import os
from pathlib import Path

from mira_megatron.corpus.raw_digests import raw_files_digest
from mira_megatron.corpus.sources import SourceFile


def write(path: Path, content: bytes, *, modified_ns: int) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(modified_ns, modified_ns))


def files(folder: Path, *names: str) -> list[SourceFile]:
    return [SourceFile(path=folder / name, name=name) for name in names]


def test_raw_digest_is_the_same_on_a_machine_with_other_times_and_no_cache(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "a", b"one", modified_ns=1)
    write(tmp_path / "elsewhere" / "a", b"one", modified_ns=2)
    here = raw_files_digest(files(tmp_path, "a"), tmp_path / "here.json")
    there = raw_files_digest(files(tmp_path / "elsewhere", "a"), tmp_path / "there.json")
    assert here == there
    assert raw_files_digest(files(tmp_path, "a"), tmp_path / "here.json") == here


def test_raw_digest_changes_with_a_content_a_name_or_a_file(tmp_path: Path) -> None:
    for name, content in {"a": b"one", "b": b"two", "c": b"one"}.items():
        write(tmp_path / name, content, modified_ns=1)
    lists = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c")]
    cache = tmp_path / "cache.json"
    digests = {raw_files_digest(files(tmp_path, *names), cache) for names in lists}
    assert len(digests) == len(lists)


def test_raw_digest_does_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    write(tmp_path / "a", b"one", modified_ns=1)
    write(tmp_path / "b", b"two", modified_ns=1)
    cache = tmp_path / "cache.json"
    forth = raw_files_digest(files(tmp_path, "a", "b"), cache)
    assert raw_files_digest(files(tmp_path, "b", "a"), cache) == forth


def test_raw_digest_of_a_file_that_stood_still_is_not_taken_again(tmp_path: Path) -> None:
    # As git does: same size and modification time means not looked into.
    cache = tmp_path / "cache.json"
    write(tmp_path / "a", b"one", modified_ns=1)
    before = raw_files_digest(files(tmp_path, "a"), cache)
    write(tmp_path / "a", b"two", modified_ns=1)
    assert raw_files_digest(files(tmp_path, "a"), cache) == before


def test_raw_digest_of_a_file_of_another_time_or_size_is_taken_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    digests = set()
    for content, modified_ns in ((b"one", 1), (b"two", 2), (b"three", 2)):
        write(tmp_path / "a", content, modified_ns=modified_ns)
        digests.add(raw_files_digest(files(tmp_path, "a"), cache))
    assert len(digests) == 3


def test_raw_digest_of_a_file_only_touched_stays_the_same(tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    write(tmp_path / "a", b"one", modified_ns=1)
    before = raw_files_digest(files(tmp_path, "a"), cache)
    write(tmp_path / "a", b"one", modified_ns=2)
    assert raw_files_digest(files(tmp_path, "a"), cache) == before
