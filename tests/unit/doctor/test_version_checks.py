from __future__ import annotations

from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.version_checks import check_bridge_release, check_packed_gated_delta_net


def test_bridge_release_too_old_for_qwen35_is_found_with_the_way_out() -> None:
    facts = TrainingFacts(model="qwen35_35b_a3b", bridge_version="0.3.1")
    (finding,) = check_bridge_release(facts)
    assert finding.level == "error"
    assert "needs Megatron-Bridge >= 0.5, and 0.3.1 is installed" in finding.what


def test_bridge_release_is_found_by_the_base_models_architecture_too() -> None:
    facts = TrainingFacts(hf_architecture="Qwen3_5MoeForCausalLM", bridge_version="0.4.2")
    assert len(check_bridge_release(facts)) == 1


def test_bridge_release_new_enough_or_unknown_is_silent() -> None:
    assert not check_bridge_release(TrainingFacts(model="qwen35_35b_a3b", bridge_version="0.5.1"))
    assert not check_bridge_release(TrainingFacts(model="qwen3_30b_a3b", bridge_version="0.3.1"))
    assert not check_bridge_release(TrainingFacts(model="qwen35_35b_a3b", bridge_version=None))


def _linear(mcore: str, *, is_packed: bool = True) -> TrainingFacts:
    return TrainingFacts(
        attention_variant="gated_delta_net", is_packed=is_packed, mcore_version=mcore
    )


def test_packed_linear_attention_on_old_megatron_core_is_found() -> None:
    assert [finding.where for finding in check_packed_gated_delta_net(_linear("0.17.0"))] == [
        "megatron-core 0.17.0"
    ]


def test_packed_linear_attention_is_silent_where_it_works() -> None:
    assert not check_packed_gated_delta_net(_linear("0.18.0rc1"))
    assert not check_packed_gated_delta_net(_linear("0.16.1", is_packed=False))
    assert not check_packed_gated_delta_net(TrainingFacts(is_packed=True, mcore_version="0.16.1"))
