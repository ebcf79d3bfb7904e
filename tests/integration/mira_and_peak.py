"""Runs `mira` and fails when its process took more memory than it may: BYTES WORDS…"""

from __future__ import annotations

import sys
from pathlib import Path

from mira_megatron.cli import main

code = main(sys.argv[2:])
# Not getrusage: a process starts there with the peak of the one that started it.
status = Path("/proc/self/status").read_text()
peak_bytes = int(status.split("VmHWM:")[1].split()[0]) * 1024
sys.stderr.write(f"peak {peak_bytes / 1e9:.2f} GB\n")
sys.exit(code or int(peak_bytes > int(sys.argv[1])))
