from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from mira_megatron.manifest import (
    Counts,
    Manifest,
    Part,
    fingerprint,
    list_parts,
    output_digest,
    read_manifest,
    verify_parts,
    write_manifest,
)


def write(folder: Path, *names: str, content: bytes = b"abc") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names(parts: Iterable[Part]) -> list[str]:
    return [part.path for part in parts]


def manifest_of(folder: Path) -> Manifest:
    parts = list_parts(folder, {"part-0": 2})
    return Manifest(
        stage="score",
        unit="wiki",
        stage_version=1,
        config={"budget": 0.5, "names": ["a"]},
        inputs={"records/wiki": "00"},
        fingerprint="ff",
        output_digest=output_digest(parts),
        parts=parts,
        counts=Counts(num_in=3, num_out=2, dropped={"empty_text": 1}, totals={"tokens": 7}),
        seconds=1.5,
        code={"version": "0"},
        packages={"numpy": "2"},
    )


def test_list_parts_names_every_file_in_order_with_size_rows_and_digest(tmp_path: Path) -> None:
    write(tmp_path, "b", "sub/a", "a")
    parts = list_parts(tmp_path, {"a": 4})
    assert names(parts) == ["a", "b", "sub/a"]
    assert (parts[0].size_bytes, parts[0].num_rows, parts[1].num_rows) == (3, 4, None)
    # `printf abc | xxhsum -H2`
    assert {part.digest for part in parts} == {"06b05ab6733a618578af5f94892f3950"}


def test_list_parts_leaves_out_hidden_files_and_bookkeeping(tmp_path: Path) -> None:
    write(tmp_path, "part-0", "manifest.json", "intent.json", ".part-1.tmp", ".scratch/shard-0")
    assert names(list_parts(tmp_path, {})) == ["part-0"]


def test_list_parts_lists_hidden_files_of_a_checkpoint(tmp_path: Path) -> None:
    # torch writes `.metadata` beside the weights.
    write(tmp_path, "weights/.metadata", "weights/manifest.json")
    assert names(list_parts(tmp_path, {})) == ["weights/.metadata", "weights/manifest.json"]


def test_list_parts_of_a_folder_inside_a_hidden_one_are_listed(tmp_path: Path) -> None:
    write(tmp_path / ".runs" / "unit", "part-0")
    assert names(list_parts(tmp_path / ".runs" / "unit", {})) == ["part-0"]


def test_list_parts_lists_a_link_as_the_link_whatever_its_target_holds(tmp_path: Path) -> None:
    write(tmp_path, "tokens/a.bin", content=b"first")
    (tmp_path / "blend").mkdir()
    (tmp_path / "blend" / "view.bin").symlink_to("../tokens/a.bin")
    before = list_parts(tmp_path / "blend", {})
    write(tmp_path, "tokens/a.bin", content=b"other and longer")
    assert list_parts(tmp_path / "blend", {}) == before
    assert before[0].size_bytes == len("../tokens/a.bin")
    (tmp_path / "blend" / "view.bin").unlink()
    (tmp_path / "blend" / "view.bin").symlink_to("../tokens/b.bin")
    write(tmp_path, "tokens/b.bin")
    assert list_parts(tmp_path / "blend", {})[0].digest != before[0].digest


def test_output_digest_changes_with_a_name_or_a_content_alone(tmp_path: Path) -> None:
    part = Part(path="a", size_bytes=1, digest="0", num_rows=None)
    others = [
        (),
        (Part(path="b", size_bytes=1, digest="0", num_rows=None),),
        (Part(path="a", size_bytes=1, digest="1", num_rows=None),),
        (part, part),
    ]
    assert len({output_digest(parts) for parts in [(part,), *others]}) == 5
    counted = Part(path="a", size_bytes=1, digest="0", num_rows=9)
    assert output_digest([counted]) == output_digest([part])


def test_fingerprint_changes_with_a_value_but_not_with_the_order_of_keys() -> None:
    def of(config: Mapping[str, int], inputs: Mapping[str, str]) -> str:
        return fingerprint(stage="s", unit="u", stage_version=1, config=config, inputs=inputs)

    first = of({"a": 1, "b": 2}, {"x": "1", "y": "2"})
    assert of({"b": 2, "a": 1}, {"y": "2", "x": "1"}) == first
    assert of({"a": 2, "b": 1}, {"x": "1", "y": "2"}) != first
    assert of({"a": 1, "b": 2}, {"x": "2", "y": "1"}) != first


def test_manifest_read_back_is_the_one_written(tmp_path: Path) -> None:
    write(tmp_path, "part-0", "part-1")
    manifest = manifest_of(tmp_path)
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_manifest_that_is_no_json_names_the_way_out(tmp_path: Path) -> None:
    write(tmp_path, "manifest.json", content=b'{"stage": ')
    with pytest.raises(ValueError, match=r"manifest\.json: not JSON .*Delete .* to recompute it"):
        read_manifest(tmp_path)


def test_verify_parts_of_an_untouched_folder_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, "part-0", "part-1")
    verify_parts(tmp_path, manifest_of(tmp_path))


def test_verify_parts_names_a_part_that_is_missing_with_its_size_and_rows(tmp_path: Path) -> None:
    write(tmp_path, "part-0", "part-1")
    manifest = manifest_of(tmp_path)
    (tmp_path / "part-0").unlink()
    with pytest.raises(ValueError, match=r"part-0: this part is missing.* 3 bytes, 2 rows"):
        verify_parts(tmp_path, manifest)


def test_verify_parts_names_a_part_of_another_size(tmp_path: Path) -> None:
    write(tmp_path, "part-0", "part-1")
    manifest = manifest_of(tmp_path)
    write(tmp_path, "part-1", content=b"ab")
    with pytest.raises(ValueError, match=r"part-1: this part has 2 bytes, but .* 3 bytes"):
        verify_parts(tmp_path, manifest)


def test_verify_parts_names_a_link_whose_target_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "tokens/a.bin", "unit/part-0")
    (tmp_path / "unit" / "view.bin").symlink_to("../tokens/a.bin")
    manifest = manifest_of(tmp_path / "unit")
    (tmp_path / "tokens" / "a.bin").unlink()
    with pytest.raises(ValueError, match=r"view\.bin: this part is missing"):
        verify_parts(tmp_path / "unit", manifest)
