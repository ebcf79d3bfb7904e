"""Files that appear under their name only when they are whole.

A file is written beside its place under a temporary name, flushed to disk, and renamed. So a file
that exists can be trusted by whoever resumes. Standard library only: the parts of this package that
run inside a training container import nothing else.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explaining_full_disk(path: Path, doing: str) -> Iterator[None]:
    """Puts file, deed and way out into what is said of a full disk (one of NO_SPACE)."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise OSError(error.errno, f"{path}: no space left while {doing}") from error


@contextmanager
def replacing(path: Path, *, is_flushed: bool = True) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` when the block ends well, and vanishes otherwise.

    Not flushed, a file may be damaged by a power failure: for what is checked by its digest.
    Raises OSError (one of NO_SPACE) with the file and the way out when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    doing = "writing. Finished files are kept: make room and run the same command again"
    try:
        with explaining_full_disk(path, doing):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if is_flushed:
                with temporary.open("rb+") as written:
                    os.fsync(written.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_temporary(path: Path) -> bool:
    """Returns whether a file is one that `replacing` had not finished."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def write_bytes(path: Path, content: bytes | memoryview, *, is_flushed: bool = True) -> None:
    """Writes a whole file atomically."""
    with replacing(path, is_flushed=is_flushed) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: object, *, is_flushed: bool = True) -> None:
    """Writes sorted, indented JSON atomically, so that equal content is equal bytes."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode(), is_flushed=is_flushed)


def link_relative(target: Path, path: Path, *, within: Path | None = None) -> None:
    """Makes `path` a symbolic link to `target`, relative so that both can be mounted elsewhere.

    A target outside the folder `within` is linked absolutely: the two do not move together.
    """
    moves_along = within is None or target.is_relative_to(within)
    wanted = os.path.relpath(target, path.parent) if moves_along else str(target.absolute())
    if path.is_symlink() and str(path.readlink()) == wanted:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(wanted)
    os.replace(temporary, path)
