"""What a store of answers takes of memory, whatever it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_NUM_ANSWERS = 300_000
_NUM_BEFORE = 30_000
# Between the two a dict of all answers took some 68 MB. Keys that are mapped take 24 bytes each,
# twice while files of them are merged.
_MOST_BYTES = 40 << 20
_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from stored_answers import key, stored
from mira_megatron.scoring.answer_store import AnswerStore

folder, num_before, num_answers = Path(sys.argv[1]), *map(int, sys.argv[3:])

def peak_bytes(numbers):
    with AnswerStore(folder, answers_per_journal=10_000) as store:
        for number in numbers:
            store.put(stored(number))
    store = AnswerStore(folder)
    assert len(store) == numbers[-1] + 1
    assert len(store.known([key(number) for number in numbers[:10_000]])) == 10_000
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

print(-peak_bytes(range(num_before)) + peak_bytes(range(num_before, num_answers)))
"""


def test_memory_does_not_grow_with_the_answers(tmp_path: Path) -> None:
    words = [tmp_path, Path(__file__).parent, _NUM_BEFORE, _NUM_ANSWERS]
    command = [sys.executable, "-c", _SCRIPT, *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) < _MOST_BYTES
