import pytest
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.moe import moe_utils

from mira_megatron.training.cpu import patch_megatron_for_cpu
from mira_megatron.training.cpu_threads import cpu_threads

pytestmark = [
    pytest.mark.megatron,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the patches are for machines without"),
]


@pytest.mark.parametrize("num_calls", [1, 2])
def test_patches_give_megatron_a_device_a_wait_a_generator_and_a_router(num_calls: int) -> None:
    for _ in range(num_calls):
        patch_megatron_for_cpu()

    assert torch.zeros(1, device=torch.cuda.current_device()).device.type == "cpu"
    torch.cuda.synchronize()
    with get_cuda_rng_tracker().fork("expert-parallel-rng"):
        assert torch.rand(1) < 1
    assert moe_utils.te_general_gemm is None


def test_patches_do_not_pretend_that_cuda_is_there() -> None:
    patch_megatron_for_cpu()

    assert not torch.cuda.is_available()


def test_threads_are_as_before_when_the_block_ends() -> None:
    before = torch.get_num_threads()
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before
