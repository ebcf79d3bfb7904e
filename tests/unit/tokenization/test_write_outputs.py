"""What `write_tokens` finds under its prefix: its own work, its outputs, files of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from written_tokens import (
    TEXTS,
    documents,
    files_under,
    jsonl,
    megatron_writes,
    train_tokenizer,
    written,
)

from mira_megatron.file_lock import held_lock
from mira_megatron.tokenization import raw_text
from mira_megatron.tokenization import write_tokens as write_tokens_module
from mira_megatron.tokenization.index_file import bin_path
from mira_megatron.tokenization.write_outputs import WriteOutputs
from mira_megatron.tokenization.write_tokens import WriteConfig, write_tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_text, "_MIN_SHARD_BYTES", 500)


@pytest.mark.parametrize("suffix", ["bin", "idx", "records.parquet", "dropped.jsonl"])
def test_files_of_someone_else_are_not_overwritten(
    tmp_path: Path, tokenizer: Path, suffix: str
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    (tmp_path / f"tokens.{suffix}").write_bytes(b"not ours")
    with pytest.raises(ValueError, match=rf"tokens\.{suffix}: exists, and was not written by"):
        write_tokens([path], tmp_path / "tokens", WriteConfig(tokenizer=tokenizer))
    assert (tmp_path / f"tokens.{suffix}").read_bytes() == b"not ours"
    assert not (tmp_path / ".tokens.mira-write").exists()


@pytest.mark.parametrize("suffix", ["bin", "idx", "records.parquet", "dropped.jsonl"])
@pytest.mark.parametrize("is_lost", [True, False])
def test_an_output_that_was_lost_or_changed_is_noticed(
    tmp_path: Path, tokenizer: Path, suffix: str, is_lost: bool
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    path.write_bytes(path.read_bytes() + b"{\n")
    written([path], tokenizer, tmp_path, max_bad_fraction=0.1)
    output = tmp_path / f"tokens.{suffix}"
    if is_lost:
        output.unlink()
    else:
        output.write_bytes(output.read_bytes() + b"\0")
    expected = "missing" if is_lost else r"[\d,]+ bytes"
    with pytest.raises(ValueError, match=rf"tokens\.{suffix}: {expected}, but was written with"):
        written([path], tokenizer, tmp_path, max_bad_fraction=0.1)


def test_inputs_beside_the_outputs_stay_as_they_are(tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "tokens.shards" / "p0.jsonl"
    path.parent.mkdir()
    jsonl(path, TEXTS)
    before = path.read_bytes()
    for _ in range(2):
        written([path], tokenizer, tmp_path)
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", [".tokens.mira-write/p0.jsonl", "tokens.dropped.jsonl"])
def test_an_input_where_the_outputs_go_is_refused(
    tmp_path: Path, tokenizer: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    path = jsonl(tmp_path / name, TEXTS)
    with pytest.raises(ValueError, match="is an input and what --output"):
        written([path], tokenizer, tmp_path)
    assert path.exists()


def test_a_work_folder_of_someone_else_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    work = tmp_path / ".tokens.mira-write"
    work.mkdir()
    (work / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"mira-write: holds mine\.txt but no plan\.json"):
        written([path], tokenizer, tmp_path)
    assert files_under(work) == {"mine.txt": b""}


def test_a_file_of_someone_else_in_the_work_folder_is_kept(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", [*TEXTS, "last"])
    with pytest.raises(ValueError, match="no_text"):
        written([path], tokenizer, tmp_path, text_field="txt")
    work = tmp_path / ".tokens.mira-write"
    (work / "mine.txt").touch()
    written([path], tokenizer, tmp_path)
    assert files_under(work) == {"mine.txt": b""}


def test_a_refused_run_goes_on_when_it_is_corrected(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "bad.jsonl", TEXTS)
    path.write_bytes(path.read_bytes() + b"{\n")
    with pytest.raises(ValueError, match="is not one of its added tokens"):
        written([path], tokenizer, tmp_path / "out", eod_token="</s>")
    with pytest.raises(ValueError, match="no_text"):
        written([path], tokenizer, tmp_path / "out", text_field="txt")
    with pytest.raises(ValueError, match="invalid_json"):
        written([path], tokenizer, tmp_path / "out")
    report = written([path], tokenizer, tmp_path / "out", max_bad_fraction=0.1)
    assert (report.num_documents, report.num_dropped) == (len(TEXTS), {"invalid_json": 1})
    assert written([path], tokenizer, tmp_path / "out", max_bad_fraction=0.2).was_done
    with pytest.raises(ValueError, match=r"written\.json: written without 1 of 63 rows"):
        written([path], tokenizer, tmp_path / "out")


def test_a_run_that_failed_while_it_joined_goes_on(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    path.write_bytes(path.read_bytes() + b"{\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WriteOutputs, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            written([path], tokenizer, tmp_path, max_bad_fraction=0.1)
    assert (tmp_path / "tokens.dropped.jsonl").exists()
    report = written([jsonl(path, TEXTS)], tokenizer, tmp_path)
    assert report.num_documents == len(documents(tmp_path)) == len(TEXTS)
    assert not (tmp_path / "tokens.dropped.jsonl").exists()


def test_a_corrected_file_is_read_again_after_a_refusal(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    path.write_bytes(path.read_bytes() + b"{\n")
    with pytest.raises(ValueError, match="invalid_json"):
        written([path], tokenizer, tmp_path / "out")
    written([jsonl(path, TEXTS[::-1])], tokenizer, tmp_path / "out")
    megatron_writes([path], tokenizer, tmp_path / "megatron")
    ours = bin_path(tmp_path / "out" / "tokens").read_bytes()
    assert ours == bin_path(tmp_path / "megatron").read_bytes()


def test_another_version_of_what_is_written_is_refused(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    written([path], tokenizer, tmp_path)
    monkeypatch.setattr(write_tokens_module, "VERSION", 0)
    with pytest.raises(ValueError, match="another version than in this command"):
        written([path], tokenizer, tmp_path)


def test_a_lock_is_tested_and_kept(tmp_path: Path, tokenizer: Path) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)
    lock = tmp_path / ".tokens.lock"
    with (
        held_lock(lock, "unused"),
        pytest.raises(ValueError, match=r"\.tokens\.lock: another process writes"),
    ):
        written([path], tokenizer, tmp_path)
    for _ in range(2):
        written([path], tokenizer, tmp_path)
        assert lock.exists()


def test_what_another_process_wrote_while_the_lock_was_taken_is_kept(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "one.jsonl", TEXTS)

    @contextmanager
    def late(lock: Path, refusal: str) -> Iterator[None]:
        monkeypatch.setattr(write_tokens_module, "held_lock", held_lock)
        written([path], tokenizer, tmp_path)
        with held_lock(lock, refusal):
            yield

    monkeypatch.setattr(write_tokens_module, "held_lock", late)
    assert written([path], tokenizer, tmp_path).was_done
