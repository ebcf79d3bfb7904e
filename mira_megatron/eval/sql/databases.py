"""The SQLite files of a benchmark: one folder per database, FOLDER/<name>/<name>.sqlite.

They are never written to. A file with a journal beside it is refused: what the journal holds would
not be seen, and the answers would be those of another database.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from mira_megatron.eval.verdicts import digest

_MAGIC = b"SQLite format 3\0"
_JOURNALS = ("-wal", "-journal")


@dataclass(frozen=True, kw_only=True, slots=True)
class Databases:
    """Files by the name that tasks know them by, and variants of them with other rows."""

    paths: dict[str, Path]
    variants: dict[str, tuple[Path, ...]]  # by name; of Spider's test suites
    _digests: dict[Path, str] = field(default_factory=dict)

    def digest_of(self, path: Path) -> str:
        """Returns 32 hexadecimal digits of a file's SHA-256; read once."""
        if path not in self._digests:
            with path.open("rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        return self._digests[path]

    @property
    def digest(self) -> str:
        """Returns a digest of all files, variants too."""
        parts = []
        for name, path in sorted(self.paths.items()):
            files = (path, *self.variants.get(name, ()))
            parts += [name, *(self.digest_of(each) for each in files)]
        return digest(*parts)


def find_databases(
    folder: Path, names: Iterable[str], variants_folder: Path | None = None
) -> Databases:
    """Returns the named databases. Raises FileNotFoundError or ValueError for what is not there."""
    wanted = sorted(set(names))
    paths = {name: folder / name / f"{name}.sqlite" for name in wanted}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(paths)} databases are not there, the first is "
            f"{missing[0]}; unpack the benchmark's databases there, or name their folder with the "
            "option `databases` of the suite"
        )
    variants: dict[str, tuple[Path, ...]] = {}
    for name in wanted if variants_folder is not None else ():
        assert variants_folder is not None
        found = sorted((variants_folder / name).glob("*.sqlite"))
        if not found:
            raise FileNotFoundError(
                f"{variants_folder / name}: no *.sqlite; unpack Spider's test suite databases "
                "there, or leave the option `test_suite` out"
            )
        variants[name] = tuple(path.resolve() for path in found)
    for path in (*paths.values(), *(path for each in variants.values() for path in each)):
        _check(path)
    return Databases(
        paths={name: path.resolve() for name, path in paths.items()}, variants=variants
    )


def table_definitions(path: Path) -> list[str]:
    """Returns the CREATE TABLE statements of a file in the order in which they were made.

    Raises ValueError where the file cannot be read.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
        try:
            connection.text_factory = lambda content: content.decode(errors="replace")
            rows = connection.execute(
                "SELECT sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL"
                " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ValueError(f"{path}: no SQLite database ({error}); unpack it again") from error
    return [str(sql).strip() for (sql,) in rows]


def _check(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise ValueError(
            f"{path}: begins with {start!r}, expected an SQLite database ({_MAGIC!r}); unpack it "
            "again (a file of Git LFS that was not fetched looks like this, too)"
        )
    for suffix in _JOURNALS:
        journal = path.with_name(path.name + suffix)
        if journal.is_file() and journal.stat().st_size > 0:
            raise ValueError(
                f"{journal}: changes that {path.name} does not hold yet; let SQLite finish them "
                f"(sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'), or unpack it again"
            )
