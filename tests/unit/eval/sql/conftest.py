from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sql_files import readable_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with readable_folder() as path:
        yield path
