import pytest
from megatron.core import parallel_state
from torch import distributed

from mira_megatron.training.process_group import megatron_process_group, process_group_of_torchrun

pytestmark = pytest.mark.megatron


def test_process_group_of_one_process_has_one_data_parallel_rank() -> None:
    with megatron_process_group():
        assert distributed.get_world_size() == 1
        assert parallel_state.get_data_parallel_world_size() == 1

    assert not distributed.is_initialized()
    assert not parallel_state.model_parallel_is_initialized()


def test_process_group_after_an_error_can_be_set_up_again() -> None:
    with pytest.raises(KeyError), megatron_process_group():
        raise KeyError("from the block")

    with megatron_process_group():
        assert parallel_state.get_data_parallel_rank() == 0


def test_process_group_of_several_processes_without_an_address_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="world_size=2 needs master_address and master_port"),
        megatron_process_group(world_size=2),
    ):
        pass


@pytest.mark.parametrize(
    "environ",
    [
        {"WORLD_SIZE": "4"},  # as some schedulers leave it
        {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_PORT": "29500"},
    ],
)
def test_process_group_without_torchruns_rank_or_peers_is_one_process(
    environ: dict[str, str],
) -> None:
    with process_group_of_torchrun(environ):
        assert distributed.get_world_size() == 1


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", None), ("LOCAL_RANK", "first"), ("MASTER_PORT", "")]
)
def test_process_group_of_half_a_torchrun_environment_is_refused(
    name: str, value: str | None
) -> None:
    environ = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "29500"}
    environ.pop(name)
    if value is not None:
        environ[name] = value

    with pytest.raises(ValueError, match=f"RANK is set, so {name} must be a number"):
        process_group_of_torchrun(environ)
