"""What a fine-tuning reads in the real Megatron-Bridge 0.3.1, preempted or not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bridge_tokenizers import write_tokenizer_folder
from environments import environment_python, run_probe

pytestmark = pytest.mark.integration

PROBE = ["bridge_stand_ins.py", "bridge_packed_probe.py"]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("packed")
    write_tokenizer_folder(folder / "base", eos_token="<|endoftext|>")
    (folder / "data").mkdir()
    for name, count in (("training", 29), ("validation", 5)):
        rows = [
            {"input": f"question {number}: ", "output": f"answer {number}<|im_end|>"}
            for number in range(count)
        ]
        (folder / "data" / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    (folder / "base_megatron").mkdir()
    made: dict[str, Any] = run_probe(environment_python("bridge"), PROBE, ["data", "base"], folder)
    return made


def test_a_preempted_fine_tuning_reads_what_one_without_a_stop_reads(read: dict[str, Any]) -> None:
    whole = read["train"][0]
    num_packs, _ = read["num_packs"]
    assert num_packs % 4 != 0  # no whole number of batches
    assert 2 * num_packs < 4 * len(whole)  # more than two passes
    for done, rest in enumerate(read["train"]):
        assert rest == whole[done:]


def test_every_pass_of_a_fine_tuning_is_whole_and_in_an_order_of_its_own(
    read: dict[str, Any],
) -> None:
    num_packs, _ = read["num_packs"]
    packs = [json.dumps(pack) for batch in read["train"][0] for pack in batch]
    first, second = packs[:num_packs], packs[num_packs : 2 * num_packs]
    assert len(set(first)) == num_packs
    assert sorted(first) == sorted(second)
    assert first != second


def test_evaluations_on_less_than_a_batch_come_to_an_end(read: dict[str, Any]) -> None:
    whole = read["valid"][0]
    _, num_packs = read["num_packs"]
    assert 0 < num_packs < 4
    assert {len(batch) for batch in whole} == {4}
    for done, rest in enumerate(read["valid"]):
        assert rest == whole[done:]
