"""Runs a command on a disk that fills up.

    python on_small_disk.py FOLDER ROOM_BYTES COMMAND...    inside `unshare -m` or `unshare -rm`

FOLDER/run moves to a tmpfs mounted on FOLDER/disk that has ROOM_BYTES left; the command finds it as
FOLDER/disk/run. What lay there afterwards is copied to FOLDER/full, and exit code and output go to
FOLDER/full.json. The mount belongs to this process's own mount namespace and ends with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PLENTY_BYTES = 256 << 20


def mount(folder: Path, size_bytes: int, *options: str) -> None:
    """Mounts a tmpfs of this size, or resizes it with the option `remount`."""
    settings = ",".join([f"size={size_bytes}", *options])
    subprocess.run(["mount", "-t", "tmpfs", "-o", settings, "tmpfs", str(folder)], check=True)


def main() -> None:
    """Mounts, fills, keeps what was left and said."""
    folder, room_bytes, command = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    disk = folder / "disk"
    disk.mkdir()
    mount(disk, PLENTY_BYTES)
    shutil.copytree(folder / "run", disk / "run", symlinks=True)
    status = os.statvfs(disk)
    used_bytes = (status.f_blocks - status.f_bfree) * status.f_frsize
    mount(disk, used_bytes + room_bytes, "remount")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    shutil.copytree(disk / "run", folder / "full", symlinks=True)
    said = {"exit_code": done.returncode, "output": done.stdout.decode()}
    (folder / "full.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
