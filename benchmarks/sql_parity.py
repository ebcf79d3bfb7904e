"""Compares rows as Spider's own script does, and as this package does, on random small tables.

    git clone https://github.com/taoyds/test-suite-sql-eval
    pip install sqlparse
    python benchmarks/sql_parity.py test-suite-sql-eval

Also drops DISTINCT from the gold statements in that repository with both, and asks both rules of
row order for theirs. Prints how many agree; exits with 1 where some comparison of rows does not.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import types
from pathlib import Path
from typing import Any

import sqlparse

from mira_megatron.eval.sql.comparison import same_under_column_order
from mira_megatron.eval.sql.row_order import is_ordered
from mira_megatron.eval.sql.statements import says_order_by, without_distinct

NUM_TABLES = 40_000
# Without numbers beside text that reads like them: there the official result depends on spelling.
VALUES: tuple[list[Any], ...] = ([0, 1], [0, 1, "a"], [None, 1, 2.5, "x"], [0, 1, 2, 3, 4])


def main(folder: Path) -> int:
    official = official_module(folder)
    rng = random.Random(1)
    num_different = 0
    for _ in range(NUM_TABLES):
        left, right = tables(rng)
        for is_in_order in (True, False):
            expected = official.result_eq(left, right, is_in_order)
            if expected != same_under_column_order(left, right, is_ordered=is_in_order):
                num_different += 1
                print(f"differs: {left} {right} is_ordered={is_in_order}, official {expected}")
    print(f"rows: {2 * NUM_TABLES:,} comparisons, {num_different:,} differ")
    lines = (folder / "evaluation_examples/gold.txt").read_text().splitlines()
    gold = [line.rpartition("\t")[0] for line in lines if line.strip()]
    different = [each for each in gold if tokens_without_distinct(each) != without_distinct(each)]
    print(f"DISTINCT: {len(gold):,} gold statements, {len(different):,} differ")
    different = [each for each in gold if says_order_by(each) != is_ordered(each)]
    print(f"order by in the text and outermost: {len(different):,} differ")
    return int(num_different > 0)


def tables(rng: random.Random) -> tuple[list[Any], list[Any]]:
    num_columns, num_rows = rng.randint(1, 4), rng.randint(0, 5)
    values = rng.choice(VALUES)

    def random_table() -> list[Any]:
        return [tuple(rng.choice(values) for _ in range(num_columns)) for _ in range(num_rows)]

    left = random_table()
    if rng.random() < 0.3:
        return left, random_table()
    order = rng.sample(range(num_columns), num_columns)
    right = [tuple(row[column] for column in order) for row in left]
    if rng.random() < 0.5:
        rng.shuffle(right)
    if right and rng.random() < 0.4:
        right[0] = (rng.choice(values), *right[0][1:])
    return left, right


def tokens_without_distinct(statement: str) -> str:
    tokens = sqlparse.parse(statement)[0].flatten()
    return "".join(token.value for token in tokens if token.value.lower() != "distinct")


def official_module(folder: Path) -> types.ModuleType:
    """Returns exec_eval.py; of what it imports, the comparison of rows needs nothing."""
    for name in ("tqdm", "parse"):
        stand_in: Any = types.ModuleType(name)
        stand_in.get_all_preds_for_execution = stand_in.remove_distinct = None
        sys.modules[name] = stand_in
    spec = importlib.util.spec_from_file_location("exec_eval", folder / "exec_eval.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
