import sysconfig
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus.sources import (
    FILES_PER_SHARD,
    SourceConfig,
    SourceFile,
    input_shards,
    load_source,
    resolve_files,
    source_from_mapping,
)

TEXT_ROWS = {"format": "jsonl", "family": "text", "fields": {"text": "content"}}


def source(**settings: Any) -> SourceConfig:
    return source_from_mapping({**TEXT_ROWS, "paths": ["."], **settings}, "here")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(config: SourceConfig, folder: Path) -> list[str]:
    return [file.name for file in resolve_files(config, folder)]


def test_load_source_reads_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "code.yaml"
    path.write_text(
        "format: text_tree\nfamily: text\npaths: [src]\ngroup: text-code\nmax_records: 1e3\n"
    )

    assert load_source(path) == SourceConfig(
        format="text_tree", family="text", paths=["src"], group="text-code", max_records=1000
    )


def test_load_source_with_unknown_key_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "code.yaml"
    path.write_text("format: text_tree\nfamily: text\npath: [src]\n")

    with pytest.raises(ValueError, match=r"code.yaml: unknown key 'path'.*'paths'"):
        load_source(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "csv"}, "format='csv' is none of jsonl"),
        ({"family": "chat"}, "family='chat' is none of text"),
        ({"family": "qa"}, "needs exactly question, answer"),
        ({"format": "text_tree"}, "leave out fields"),
        ({"format": "text_tree", "family": "qa"}, "which gives family 'text'"),
        ({"group": "qa-math"}, "group='qa-math' must start with its family"),
        ({"group": "textual"}, "group='textual' must start with its family"),
        ({"paths": []}, "names no file"),
        ({"max_chars": 5, "min_chars": 6}, "nothing is left"),
        ({"max_records": 0}, "max_records=0 must be at least 1"),
        ({"max_records": 1.5}, "max_records=1.5 must be a whole number"),
        ({"split": "train"}, "for format 'huggingface' only"),
        ({"format": "huggingface", "paths": ["a/b", "c/d"]}, "takes one saved folder"),
    ],
)
def test_source_with_a_wrong_setting_is_refused_by_name(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        source(**settings)


def test_resolve_files_of_a_folder_takes_the_formats_files_and_no_hidden_ones(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "b.jsonl", "a/c.jsonl.zst", "a/d.jsonl.gz", "README.md")
    touch(tmp_path, ".e.jsonl", ".git/f.jsonl")

    files = resolve_files(source(), tmp_path)

    assert [file.name for file in files] == ["a/c.jsonl.zst", "a/d.jsonl.gz", "b.jsonl"]
    assert files[2].path == tmp_path / "b.jsonl"


def test_resolve_files_names_start_at_the_folder_all_paths_share(tmp_path: Path) -> None:
    touch(tmp_path, "raw/x/0.jsonl", "raw/y/0.jsonl", "descriptors/s.yaml")

    config = source(paths=["../raw/x/0.jsonl", "../raw/y", "../raw/*/0.jsonl"])

    assert names(config, tmp_path / "descriptors") == ["x/0.jsonl", "y/0.jsonl"]


def test_resolve_files_excludes_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "test/b.jsonl", "c/test/d.jsonl", "c/e.jsonl")

    assert names(source(exclude=["**/test/**"]), tmp_path) == ["a.jsonl", "c/e.jsonl"]
    assert names(source(exclude=["*.jsonl"]), tmp_path) == [
        "c/e.jsonl",
        "c/test/d.jsonl",
        "test/b.jsonl",
    ]


def test_resolve_files_keeps_the_placeholder_in_the_name(tmp_path: Path) -> None:
    config = source(format="text_tree", fields={}, paths=["{stdlib}/json/*.py"])

    first = resolve_files(config, tmp_path)[0]

    assert first.name == "{stdlib}/json/__init__.py"
    assert first.path == Path(sysconfig.get_path("stdlib"), "json", "__init__.py")


def test_resolve_files_where_a_path_matches_nothing_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl")

    with pytest.raises(FileNotFoundError, match=r"\*\*/b.jsonl: matches no file"):
        resolve_files(source(paths=["a.jsonl", "**/b.jsonl"]), tmp_path)


def test_resolve_files_where_an_optional_path_matches_nothing_reads_the_rest(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "a.jsonl")

    config = source(paths=["a.jsonl"], optional_paths=["gone", "gone/*.jsonl"])

    assert names(config, tmp_path) == ["a.jsonl"]


def test_resolve_files_follows_linked_files_but_no_loop(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.jsonl", "elsewhere/b.jsonl")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "b.jsonl").symlink_to(tmp_path / "elsewhere" / "b.jsonl")

    assert names(source(paths=["data"]), tmp_path) == ["a.jsonl", "b.jsonl"]
    assert names(source(paths=["data/**"]), tmp_path) == ["a.jsonl", "b.jsonl"]


def test_resolve_files_with_a_broken_link_raises(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone.jsonl")

    with pytest.raises(FileNotFoundError, match=r"a.jsonl: broken link"):
        resolve_files(source(), tmp_path)


def test_resolve_files_of_a_name_with_wildcard_characters_takes_the_file(tmp_path: Path) -> None:
    touch(tmp_path, "rows[1].jsonl")

    assert names(source(paths=["rows[1].jsonl"]), tmp_path) == ["rows[1].jsonl"]


def test_resolve_files_of_a_saved_dataset_lists_its_state_not_its_caches(tmp_path: Path) -> None:
    splits = {"train": datasets.Dataset.from_dict({"content": ["a"]})}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    touch(tmp_path, "saved/train/cache-1.arrow")

    config = source(format="huggingface", paths=["saved"], split="train")

    assert names(config, tmp_path) == ["train/data-00000-of-00001.arrow"]
    with pytest.raises(ValueError, match=r"holds the splits \['train'\]"):
        resolve_files(source(format="huggingface", paths=["saved"]), tmp_path)


def test_resolve_files_of_a_hub_name_needs_a_split_and_a_revision(tmp_path: Path) -> None:
    hub = {"format": "huggingface", "paths": ["owner/name"]}

    with pytest.raises(ValueError, match="split is missing: owner/name is no folder here"):
        resolve_files(source(**hub), tmp_path)
    with pytest.raises(ValueError, match=r"revision='main' of owner/name is no commit"):
        resolve_files(source(**hub, split="train", revision="main"), tmp_path)
    config = source(**hub, split="train", revision="0123abcdef" * 4)
    assert resolve_files(config, tmp_path) == []
    assert input_shards(config, []) == [()]


@given(num_files=st.integers(0, 3 * FILES_PER_SHARD))
def test_input_shards_hold_every_file_once_in_order(num_files: int) -> None:
    tree = source(format="text_tree", fields={}, paths=["{stdlib}/**/*.py"])
    files = [SourceFile(path=Path("/x", str(i)), name=str(i)) for i in range(num_files)]

    small_files, rows = input_shards(tree, files), input_shards(source(), files)

    assert [file for shard in small_files for file in shard] == files
    assert all(len(shard) <= FILES_PER_SHARD for shard in small_files)
    assert rows == [(file,) for file in files]
