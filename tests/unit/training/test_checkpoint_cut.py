from dataclasses import replace
from pathlib import Path

import pytest

from mira_megatron.training.bridge_layouts import H200_8
from mira_megatron.training.checkpoint_cut import RUN_CONFIG, require_same_cut
from mira_megatron.training.trained_files import LATEST


def write_checkpoint(folder: Path, **sizes: int) -> None:
    (folder / "iter_0000007").mkdir(parents=True)
    (folder / LATEST).write_text("7")
    lines = [f"  {name}_model_parallel_size: {size}" for name, size in sizes.items()]
    text = "\n".join(["model:", "  _target_: some.Provider", *lines])
    (folder / "iter_0000007" / RUN_CONFIG).write_text(text)


def test_the_same_cut_goes_on_on_other_gpus(tmp_path: Path) -> None:
    require_same_cut(tmp_path, H200_8)  # nothing was saved
    write_checkpoint(tmp_path, tensor=1, pipeline=1, context=1, expert=H200_8.expert_parallel)
    require_same_cut(tmp_path, H200_8)
    require_same_cut(tmp_path, replace(H200_8, num_gpus=2 * H200_8.num_gpus))


@pytest.mark.parametrize("name", ["tensor", "pipeline", "expert"])
def test_another_cut_is_refused_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path, **{name: 16})
    message = rf"iter_0000007/run_config\.yaml: .*{name}_model_parallel_size=16 \(now"
    with pytest.raises(ValueError, match=message):
        require_same_cut(tmp_path, H200_8)


def test_a_checkpoint_that_says_nothing_is_taken_as_it_is(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    require_same_cut(tmp_path, H200_8)
    (tmp_path / "iter_0000007" / RUN_CONFIG).unlink()
    require_same_cut(tmp_path, H200_8)
