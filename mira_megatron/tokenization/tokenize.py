"""Tokenise every source once; every later selection is a view of the result.

Reads   records/<source>/part-*.parquet; a given tokenizer, or the records to train one on
Writes  tokenizer/tokenizer.json
        tokens/<source>/<source>-<digest8>.{bin,idx}: one document per record, in record order,
        EOD appended; .records.parquet beside them: row i describes document i (DOCUMENT_SCHEMA)
        tokens/<source>/dataset.json: counts, EOD id, vocabulary, the prefix and its fingerprint
        tokens/<source>/degraded_copies.parquet: of a source that has degraded copies, which
        documents they are (degraded_documents.py)

The prefix carries the unit's fingerprint: other tokens never lie under a name that a view links to.
Held-out documents are chosen here, once, by the hash of the text alone; no arm ever trains on one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mira_megatron import layout
from mira_megatron.atomic_files import replacing
from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.manifest import Counts
from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.shards import file_digest, map_shards, read_part, with_columns, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace
from mira_megatron.tokenization.degraded_documents import write_copies
from mira_megatron.tokenization.held_out import choose_held_out
from mira_megatron.tokenization.index_file import records_path
from mira_megatron.tokenization.plain_encoders import BACKENDS
from mira_megatron.tokenization.record_shards import PartReport, PartTask, encode_part
from mira_megatron.tokenization.shard_joining import ShardJoiner
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    described_prefix,
    write_token_dataset,
)
from mira_megatron.tokenization.token_shards import read_documents
from mira_megatron.tokenization.tokenizer import (
    RecordEncoder,
    tokenizer_file,
    train_byte_level_bpe,
)

VERSION = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """The trainee's tokenizer, and what is held out of every selection."""

    tokenizer: str | None  # tokenizer.json or its folder; None trains a byte-level BPE
    eod_token: str
    validation_fraction: float  # of the hash space of texts
    validation_max_tokens: int  # per source; at least one document is held out all the same
    train_vocab_size: int | None = None
    train_on: list[str] | None = None  # sources, named so that adding one changes no token
    train_chars: int | None = None
    # What encodes; the ids are the same. auto: gigatoken where it is installed and agrees.
    backend: str = field(default="auto", metadata={"execution": True})

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend={self.backend!r} must be one of {', '.join(BACKENDS)}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction} must be in (0, 1)")
        if self.validation_max_tokens < 1:
            raise ValueError(f"validation_max_tokens={self.validation_max_tokens} must be positive")
        if self.tokenizer is None and not (
            self.train_vocab_size and self.train_on and self.train_chars
        ):
            raise ValueError(
                "tokenizer=null trains a tokenizer on the corpus and needs train_vocab_size, "
                "train_on (names of sources) and train_chars"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSettings:
    """What the tokenizer unit needs."""

    config: TokenizeConfig
    given: Path | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeSettings:
    """What one source's unit needs."""

    source: str
    config: TokenizeConfig
    has_copies: bool  # degraded ones, known by their records' meta


def units(recipe: Recipe) -> list[Unit]:
    """Returns the tokenizer's unit and one per source."""
    config = recipe.section("tokenize", TokenizeConfig)
    sources = recipe_sources(recipe)
    unknown = sorted(set(config.train_on or ()) - set(sources))
    if config.tokenizer is None and unknown:
        raise ValueError(
            f"{recipe.path}: tokenize.train_on names {', '.join(unknown)}, which is no source. "
            f"Sources: {', '.join(sources)}."
        )
    return [
        _tokenizer_unit(recipe, config),
        *(
            _source_unit(config, name, has_copies=source.degraded_copies > 0)
            for name, (source, _) in sources.items()
        ),
    ]


def _tokenizer_unit(recipe: Recipe, config: TokenizeConfig) -> Unit:
    given = None if config.tokenizer is None else tokenizer_file(recipe.path_of(config.tokenizer))
    trained = {
        "train_vocab_size": config.train_vocab_size,
        "train_on": config.train_on,
        "train_chars": config.train_chars,
    }
    return Unit(
        stage="tokenize",
        name="tokenizer",
        folder=layout.TOKENIZER,
        version=VERSION,
        config={"tokenizer.json": file_digest(given)} if given else trained,
        upstream=() if given else tuple(layout.records(name) for name in config.train_on or ()),
        work="mira_megatron.tokenization.tokenize:make_tokenizer",
        settings=TokenizerSettings(config=config, given=given),
    )


def _source_unit(config: TokenizeConfig, source: str, *, has_copies: bool) -> Unit:
    own = ("eod_token", "validation_fraction", "validation_max_tokens")
    return Unit(
        stage="tokenize",
        name=source,
        folder=layout.tokens(source),
        version=VERSION,
        config={name: value for name, value in fingerprinted(config).items() if name in own},
        upstream=(layout.records(source), layout.TOKENIZER),
        work="mira_megatron.tokenization.tokenize:tokenize",
        settings=TokenizeSettings(source=source, config=config, has_copies=has_copies),
    )


def make_tokenizer(workspace: Workspace, settings: TokenizerSettings) -> WorkResult:
    """Copies the given tokenizer into the run, or trains one on the records."""
    path = workspace.folder / layout.TOKENIZER_FILE
    if settings.given is not None:
        with replacing(path) as temporary:
            shutil.copyfile(settings.given, temporary)
        return WorkResult(counts=Counts(num_in=1, num_out=1))
    config = settings.config
    assert config.train_vocab_size is not None
    texts = list(_training_texts(workspace, config))
    tokenizer = train_byte_level_bpe(texts, config.train_vocab_size, cuts_like_qwen=True)
    with replacing(path) as temporary:
        temporary.write_text(tokenizer.to_str(), encoding="utf-8")
    return WorkResult(counts=Counts(num_in=len(texts), num_out=tokenizer.get_vocab_size()))


def _training_texts(workspace: Workspace, config: TokenizeConfig) -> Iterator[str]:
    """Yields texts of the sources named, an equal share of `train_chars` from each."""
    assert config.train_on is not None
    assert config.train_chars is not None
    share = config.train_chars // len(config.train_on)
    for source in config.train_on:
        taken = 0
        for path, part in workspace.upstream_parts(layout.records(source), ".parquet"):
            if taken >= share:
                break
            for text in read_part(path, part.digest, ["text"])["text"].to_pylist():
                if taken >= share:
                    break
                taken += len(text)
                yield text


def tokenize(workspace: Workspace, settings: TokenizeSettings) -> WorkResult:
    """Writes the token dataset of one source."""
    tokenizer = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    tasks = [
        PartTask(
            records=path,
            records_digest=part.digest,
            tokenizer=tokenizer,
            tokenizer_digest=workspace.upstream_manifest(layout.TOKENIZER).output_digest,
            eod_token=settings.config.eod_token,
            backend=settings.config.backend,
            shard=workspace.scratch / Path(part.path).stem,
        )
        for path, part in workspace.upstream_parts(layout.records(settings.source), ".parquet")
    ]
    workers = workspace.resources.workers
    title = f"tokenize {settings.source}"
    encoder = RecordEncoder(tokenizer, settings.config.eod_token, "huggingface")
    path_prefix = workspace.folder / f"{settings.source}-{workspace.fingerprint[:8]}"
    shards = [task.shard for task in tasks]
    joined = workspace.scratch / "joined.bin"
    with ShardJoiner(joined, shards, PartReport, workers=workers) as joiner:
        left = tasks[len(joiner.reports) :]
        for shard in map_shards(encode_part, left, workers=workers, title=title):
            joiner.add(shard)
        documents = read_documents(shards)
        if settings.has_copies:
            documents = write_copies(workspace, settings.source, documents)
        documents = _documents(documents, settings.config)
        tokens = documents["num_tokens"].to_numpy()
        joiner.finish(path_prefix, tokens, encoder.token_dtype)
    write_parquet(records_path(path_prefix), documents)
    reports = joiner.reports
    is_validation = documents["is_validation"].to_numpy(zero_copy_only=False)
    totals = {
        "tokens": int(tokens.sum()),
        "validation_documents": int(is_validation.sum()),
        "validation_tokens": int(tokens[is_validation].sum()),
        "control_texts_encoded_as_text": sum(report.num_control_texts for report in reports),
    }
    _write_dataset_json(workspace.folder, settings.source, path_prefix, encoder, totals)
    return WorkResult(
        counts=Counts(
            num_in=sum(report.num_documents for report in reports),
            num_out=documents.num_rows,
            totals=totals,
        ),
        rows={f"{path_prefix.name}.idx": documents.num_rows},
    )


def _write_dataset_json(
    folder: Path, source: str, path_prefix: Path, encoder: RecordEncoder, totals: dict[str, int]
) -> None:
    prefix = described_prefix(source, source, path_prefix, records_path(path_prefix))
    dataset = TokenDataset(
        source=source,
        eod_id=encoder.eod_id,
        vocab_size=encoder.vocab_size,
        prefixes=(prefix,),
    )
    write_token_dataset(folder, dataset, totals)


def _documents(shard: pa.Table, config: TokenizeConfig) -> pa.Table:
    """Returns what describes the documents, those that are held out chosen."""
    is_validation = choose_held_out(
        shard["text_hash"].combine_chunks(),
        shard["num_tokens"].to_numpy(),
        fraction=config.validation_fraction,
        max_tokens=config.validation_max_tokens,
    )
    return with_columns(shard, {"is_validation": pa.array(is_validation)}, DOCUMENT_SCHEMA)
