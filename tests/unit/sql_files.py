"""Small databases and files of questions as Spider and BIRD have them, written by tests."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

# Rows without an order of their own, twins, NULL, and the same words in other columns.
CONCERTS = """
CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT, age INTEGER, value REAL);
INSERT INTO singer VALUES
    (1, 'Ann', 'France', 52, 0.1), (2, 'Bo', 'France', 32, 0.2), (3, 'Cy', 'Peru', 52, 2.0),
    (4, 'Di', NULL, 25, NULL);
CREATE TABLE stadium (id INTEGER, city TEXT, "order" TEXT);
INSERT INTO stadium VALUES (1, 'Ayr', 'b'), (2, 'Ayr', 'a'), (3, 'Bern', 'c');
"""
NO_UTF_8 = "INSERT INTO stadium VALUES (4, CAST(x'ff41' AS TEXT), 'd');"


@contextmanager
def readable_folder() -> Iterator[Path]:
    """Yields a folder that `nobody` may read, whom sandboxes are started as by root."""
    with tempfile.TemporaryDirectory(prefix="mira-sql-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def write_database(path: Path, *scripts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for script in scripts or (CONCERTS,):
            connection.executescript(script)
    return path


def write_spider(folder: Path, queries: Sequence[str], *scripts: str) -> Path:
    """Writes dev.json and its one database, `concerts`; returns the path of dev.json."""
    database = folder / "database/concerts/concerts.sqlite"
    database.unlink(missing_ok=True)
    write_database(database, *scripts)
    tasks = [{"db_id": "concerts", "question": "Which?", "query": query} for query in queries]
    return write_json_file(folder / "dev.json", tasks)


def write_bird(folder: Path, queries: Sequence[str], *scripts: str) -> Path:
    database = folder / "dev_databases/concerts/concerts.sqlite"
    database.unlink(missing_ok=True)
    write_database(database, *scripts)
    tasks = [
        {
            "question_id": 100 + number,
            "db_id": "concerts",
            "question": "Which?",
            "evidence": "old means age > 50",
            "SQL": query,
            "difficulty": ("simple", "challenging")[number % 2],
        }
        for number, query in enumerate(queries)
    ]
    return write_json_file(folder / "dev.json", tasks)


def write_json_file(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path
