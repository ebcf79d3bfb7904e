"""EvalPlus's `evaluate` over a file of samples, in the peers' Python: one JSON line of seconds.

    evalplus_grade.py SAMPLES DATA WORKERS MIN_SECONDS

Gold values are computed, and kept by EvalPlus in XDG_CACHE_HOME, before the clock starts. What it
imports for generation is not installed, and never called.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from typing import Any


def main() -> None:
    samples, data, workers, min_seconds = sys.argv[1:]
    os.environ["MBPP_OVERRIDE_PATH"] = data  # read when it is imported
    for name, attribute in (("evalplus.codegen", "run_codegen"), ("datasets", "load_dataset")):
        stand_in: Any = types.ModuleType(name)
        setattr(stand_in, attribute, None)
        sys.modules[name] = stand_in
    from evalplus import evaluate  # noqa: PLC0415 - after its environment is set

    evaluate.get_groundtruth(
        evaluate.get_mbpp_plus(),
        evaluate.get_mbpp_plus_hash(),
        evaluate.MBPP_OUTPUT_NOT_NONE_TASKS,
    )
    started = time.perf_counter()
    evaluate.evaluate(
        "mbpp", samples=samples, parallel=int(workers), min_time_limit=float(min_seconds)
    )
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
