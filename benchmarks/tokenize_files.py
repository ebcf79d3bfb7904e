"""Raw JSON Lines to `.bin/.idx`: ours beside megatron-core 0.16.1's preprocessing loop, and others.

Some 100 MB of the code and documentation that is installed here, byte-level BPE with Qwen2.5's
regex, of 32,000 and of 152,000 entries, trained on them; two workers. All sides write the same
bytes, which is checked first. Reading a tokenizer is left out on both sides, where it is said so,
for it costs seconds whatever the size of the corpus; the figures with it have no bar.

The peer is the loop with a fast tokenizer (--tokenizer-hf-use-fast), the hardest one. Left to its
default that option is off, and transformers 4.57 then encodes in Python at two fifths of the speed.

What is no package here is emulated from its description in public sources, and says so by name:
Megatron-LM main's tools/preprocess_data_fast.py (2026-08), datatrove's MegatronDocumentTokenizer,
NeMo Curator's MegatronTokenizerWriter.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below a bar.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mira_megatron.tokenization.record_shards import open_encoder
from mira_megatron.tokenization.tokenizer import CONTROL_TOKENS, QWEN_SPLIT
from mira_megatron.tokenization.write_tokens import WriteConfig, write_tokens

EOD = "<|endoftext|>"
CORPUS_BYTES = 100_000_000
MAX_DOCUMENT_BYTES = 40_000
VOCABULARIES = (32_000, 152_000)
BAR = 40.0
REPEATS = 3
BATCH_DOCUMENTS = 10_000  # datatrove's

# Files, tokenizer, prefix, and what to call when the tokenizer has been read.
Contestant = Callable[[Path, Path, Path, Callable[[], None]], None]
_stock: Tokenizer
_encode: Callable[[str], list[int]]
_eod_id: int


@dataclass(frozen=True)
class Times:
    """Seconds, all of them."""

    reading: float  # the tokenizer
    working: float
    cpu: float  # of the work, all processes

    def best(self, other: Times) -> Times:
        """Returns the lesser of each."""
        return Times(
            min(self.reading, other.reading),
            min(self.working, other.working),
            min(self.cpu, other.cpu),
        )


def main() -> int:
    """Returns the exit code."""
    is_below = False
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.jsonl")
        megabytes = write_corpus(corpus)
        for vocab_size in VOCABULARIES:
            tokenizer = train(corpus, vocab_size, Path(folder, f"{vocab_size}.json"))
            for figure in figures(corpus, tokenizer, vocab_size, megabytes):
                print(json.dumps(figure), flush=True)
                bar = figure["bar"]
                is_below |= bar is not None and figure["ratio"] < bar
    return int(is_below)


def figures(
    corpus: Path, tokenizer: Path, vocab_size: int, megabytes: float
) -> Iterator[dict[str, object]]:
    """Yields what was measured with one tokenizer."""
    name = f"tokenize_files_{vocab_size // 1000}k"
    others = [bare_loop, main_fast_path_emulation]
    if vocab_size == VOCABULARIES[0]:
        others += [datatrove_emulation, curator_emulation, ours_by_hugging_face]
    rounds = [[ours, megatron_loop, ours, *others], *[[ours] for _ in range(REPEATS - 1)]]
    if vocab_size == VOCABULARIES[0]:
        rounds[-1].append(megatron_loop)
    best: dict[str, Times] = {}
    written: set[bytes] = set()
    for contestants in rounds:
        for contestant in contestants:
            times, content = in_fresh_process(contestant, corpus, tokenizer)
            written.add(content)
            best[contestant.__name__] = times.best(best.get(contestant.__name__, times))
    if len(written) != 1:
        sys.exit(f"{name}: the files differ: no speed is worth anything")
    speeds = {key: megabytes / times.working for key, times in best.items()}
    yield _figure(name, speeds["ours"], speeds["megatron_loop"], "0.16.1 loop", BAR)
    whole = {key: megabytes / (times.reading + times.working) for key, times in best.items()}
    yield _figure(
        f"{name}_and_reading_the_tokenizer", whole["ours"], whole["megatron_loop"], "0.16.1 loop"
    )
    on_cpu = {key: megabytes / times.cpu for key, times in best.items()}
    yield _figure(f"{name}_per_cpu_second", on_cpu["ours"], on_cpu["megatron_loop"], "0.16.1 loop")
    for other in others:
        yield _figure(f"{name}_{other.__name__}", speeds["ours"], speeds[other.__name__], "named")


def _figure(
    name: str, ours_speed: float, peer_speed: float, peer: str, bar: float | None = None
) -> dict[str, object]:
    return {
        "name": name,
        "ours": round(ours_speed, 1),
        "peer": round(peer_speed, 2),
        "unit": f"MB of text per second, 2 workers, best of the runs; peer: {peer}",
        "ratio": round(ours_speed / peer_speed, 1),
        "bar": bar,
    }


def in_fresh_process(contestant: Contestant, corpus: Path, tokenizer: Path) -> tuple[Times, bytes]:
    """Returns how long it took, and a digest of what was written."""
    context = get_context("spawn")
    results: Queue[tuple[Times, bytes]] = context.Queue()
    process = context.Process(target=_run, args=(contestant, corpus, tokenizer, results))
    process.start()
    result = results.get()
    process.join()
    return result


def _run(
    contestant: Contestant, corpus: Path, tokenizer: Path, results: Queue[tuple[Times, bytes]]
) -> None:
    with tempfile.TemporaryDirectory(dir=corpus.parent) as folder:
        marks = [(time.perf_counter(), _cpu_seconds())]

        def mark() -> None:
            marks.append((time.perf_counter(), _cpu_seconds()))

        contestant(corpus, tokenizer, Path(folder, "tokens"), mark)
        mark()
        (start, _), (opened, cpu_opened), (end, cpu_end) = marks
        times = Times(reading=opened - start, working=end - opened, cpu=cpu_end - cpu_opened)
        files = [Path(folder, f"tokens.{suffix}").read_bytes() for suffix in ("bin", "idx")]
        results.put((times, b"".join(hashed(content) for content in files)))


def _cpu_seconds() -> float:
    """Returns CPU seconds of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def hashed(content: bytes) -> bytes:
    """Returns a digest of a file's content."""
    import xxhash  # noqa: PLC0415  # beside nothing else

    return xxhash.xxh3_128_digest(content)


def ours(corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None]) -> None:
    """`write_tokens` with gigatoken."""
    _ours(corpus, tokenizer, path_prefix, opened, "gigatoken")


def ours_by_hugging_face(
    corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None]
) -> None:
    """`write_tokens` without gigatoken."""
    _ours(corpus, tokenizer, path_prefix, opened, "huggingface")


def _ours(
    corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None], backend: str
) -> None:
    _import_gigatoken()
    config = WriteConfig(tokenizer=tokenizer, workers=2, backend=backend)
    encoder = open_encoder(tokenizer, digest_of(tokenizer), config.eod_token, backend)
    encoder.prepare(config.workers)
    opened()
    write_tokens([corpus], path_prefix, config)


def digest_of(path: Path) -> str:
    """Returns the digest under which `write_tokens` keeps an open tokenizer."""
    from mira_megatron.shards import file_digest  # noqa: PLC0415  # beside nothing else

    return file_digest(path)


def megatron_loop(
    corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None]
) -> None:
    """tools/preprocess_data.py of 0.16.1: a pool encodes document by document, the parent writes.

    With the package's own tokenizer class; the workers inherit it, so that none has to read it.
    """
    from megatron.core.tokenizers import MegatronTokenizer  # noqa: PLC0415  # imports transformers

    folder = path_prefix.with_name("tokenizer")
    folder.mkdir()
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOD}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    metadata = {"library": "huggingface"}
    stock = MegatronTokenizer.from_pretrained(str(folder), metadata_path=metadata)
    _pooled(corpus, path_prefix, opened, stock.tokenize, stock.eod, stock.vocab_size)


def bare_loop(corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None]) -> None:
    """The same loop around the tokenizers library alone, which 0.16.1 does not offer."""
    stock = Tokenizer.from_file(str(tokenizer))

    def encode(text: str) -> list[int]:
        ids: list[int] = stock.encode(text).ids
        return ids

    vocab_size = stock.get_vocab_size()
    _pooled(corpus, path_prefix, opened, encode, stock.token_to_id(EOD), vocab_size)


def _pooled(
    corpus: Path,
    path_prefix: Path,
    opened: Callable[[], None],
    encode: Callable[[str], list[int]],
    eod_id: int,
    vocab_size: int,
) -> None:
    global _encode, _eod_id  # as in the peer: forked workers inherit them
    _encode, _eod_id = encode, eod_id
    builder = IndexedDatasetBuilder(f"{path_prefix}.bin", dtype=DType.optimal_dtype(vocab_size))
    opened()
    with get_context("fork").Pool(2) as pool, corpus.open(encoding="utf-8") as lines:
        for ids, lengths in pool.imap(_encode_line, lines, 32):
            builder.add_document(ids, lengths)
    builder.finalize(f"{path_prefix}.idx")


def _encode_line(line: str) -> tuple[list[int], list[int]]:
    ids = _encode(json.loads(line)["text"])
    if ids:
        ids.append(_eod_id)
    return ids, [len(ids)] if ids else []


def main_fast_path_emulation(
    corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None]
) -> None:
    """gigatoken encodes the whole file, EODs are inserted, all documents are added at once."""
    _import_gigatoken()
    import gigatoken  # noqa: PLC0415  # beside nothing else

    builder = _read_stock(tokenizer, path_prefix)
    fast = gigatoken.Tokenizer(str(tokenizer))
    opened()
    encoded = fast.encode_files(gigatoken.JsonlFileSource([str(corpus)], field="text"))
    ends = np.asarray(encoded.layout.offsets.data)[1:]
    ids = np.asarray(encoded.layout.content.data).astype(builder.dtype)
    ids = np.insert(ids, ends, _stock.token_to_id(EOD))
    lengths = (np.diff(ends, prepend=0) + 1).tolist()
    builder.data_file.write(ids.tobytes(order="C"))
    builder.sequence_lengths.extend(lengths)
    builder.document_indices.extend(range(1, len(lengths) + 1))
    builder.finalize(f"{path_prefix}.idx")


def datatrove_emulation(
    corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None]
) -> None:
    """Batches of ten thousand documents encoded by Hugging Face, an array and a write for each."""
    builder = _read_stock(tokenizer, path_prefix)
    opened()
    eod = _stock.token_to_id(EOD)
    for texts in _batches(corpus):
        for encoding in _stock.encode_batch(texts):
            builder.add_document([*encoding.ids, eod], [len(encoding.ids) + 1])
    builder.finalize(f"{path_prefix}.idx")


def curator_emulation(
    corpus: Path, tokenizer: Path, path_prefix: Path, opened: Callable[[], None]
) -> None:
    """Lists of all ids of a batch, copied for the EOD, then an array for each document."""
    builder = _read_stock(tokenizer, path_prefix)
    opened()
    eod = _stock.token_to_id(EOD)
    for texts in _batches(corpus):
        lists = [encoding.ids for encoding in _stock.encode_batch_fast(texts)]
        for ids in [[*ids, eod] for ids in lists]:
            builder.add_document(ids, [len(ids)])
    builder.finalize(f"{path_prefix}.idx")


def _batches(corpus: Path) -> Iterator[list[str]]:
    texts: list[str] = []
    with corpus.open("rb") as lines:
        for line in lines:
            texts.append(orjson.loads(line)["text"])
            if len(texts) == BATCH_DOCUMENTS:
                yield texts
                texts = []
    if texts:
        yield texts


def _read_stock(tokenizer: Path, path_prefix: Path) -> IndexedDatasetBuilder:
    global _stock  # as in the peer: forked workers inherit it
    _stock = Tokenizer.from_file(str(tokenizer))
    dtype = DType.optimal_dtype(_stock.get_vocab_size())
    return IndexedDatasetBuilder(f"{path_prefix}.bin", dtype=dtype)


def _import_gigatoken() -> None:
    """Imports what the first use imports; imports are left out on all sides."""
    import awkward  # noqa: PLC0415  # beside nothing else
    import gigatoken  # noqa: PLC0415, F401  # beside nothing else

    awkward.from_arrow(pa.array(["a"], pa.large_string()))


def write_corpus(path: Path) -> float:
    """Writes the corpus and returns the megabytes of its text.

    Every second of the .py, .md, .rst and .txt files that are installed, in order of their paths;
    none with the text of a control token, which Megatron's loop would take for the token itself.
    """
    folders = (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))
    files = (file for folder in folders for file in sorted(Path(folder).rglob("*")))
    wanted = [file for file in files if file.suffix in (".py", ".md", ".rst", ".txt")]
    num_bytes = 0
    with path.open("wb") as lines:
        for file in wanted[::2]:
            text = _text(file)
            if text is None:
                continue
            lines.write(orjson.dumps({"text": text}) + b"\n")
            num_bytes += len(text.encode())
            if num_bytes > CORPUS_BYTES:
                break
    return num_bytes / 1e6


def _text(file: Path) -> str | None:
    try:
        text = file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return None
    is_usable = 0 < len(text) < MAX_DOCUMENT_BYTES
    return text if is_usable and not any(token in text for token in CONTROL_TOKENS) else None


def train(corpus: Path, vocab_size: int, path: Path) -> Path:
    """Trains a byte-level BPE with Qwen2.5's regex on the corpus, and returns its file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with corpus.open("rb") as lines:
        tokenizer.train_from_iterator((orjson.loads(line)["text"] for line in lines), trainer)
    tokenizer.save(str(path))
    return path


if __name__ == "__main__":
    sys.exit(main())
