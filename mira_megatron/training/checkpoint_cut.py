"""Whether a training may go on from a checkpoint of Megatron-Bridge. No Bridge, no torch.

The optimizer's state is saved as it lies on the GPUs, which takes no memory and no exchange. It can
be read back on more or fewer GPUs that share the same data, not where the model is cut in another
way. Bridge's form that could (`dist_ckpt_optim_fully_reshardable`) gathers it in each process: 12
bytes of host memory a parameter of its cut, 709 GB on a node for 14B in two.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from mira_megatron.training.bridge_layouts import ClusterLayout
from mira_megatron.training.trained_files import iteration_folder, reached_step

RUN_CONFIG = "run_config.yaml"  # Bridge's, beside every checkpoint


def require_same_cut(checkpoints: Path, layout: ClusterLayout) -> None:
    """Raises ValueError where the newest checkpoint's model was cut in another way than now.

    A folder without checkpoints, or one whose checkpoint says nothing of it, is taken as it is.
    """
    step = reached_step(checkpoints)
    if step == 0:
        return
    path = iteration_folder(checkpoints, step) / RUN_CONFIG
    if not path.is_file():
        return
    model = (yaml.safe_load(path.read_text()) or {}).get("model") or {}
    wanted = {
        "tensor_model_parallel_size": layout.tensor_parallel,
        "pipeline_model_parallel_size": layout.pipeline_parallel,
        "expert_model_parallel_size": layout.expert_parallel,
    }
    differing = {name: size for name, size in wanted.items() if model.get(name, size) != size}
    if differing:
        told = ", ".join(f"{name}={model[name]} (now {size})" for name, size in differing.items())
        raise ValueError(
            f"{path}: the training was begun with {told}, and cannot go on with another cut. Go on "
            f"with a recipe of the same cut, or delete {checkpoints} to train anew."
        )
