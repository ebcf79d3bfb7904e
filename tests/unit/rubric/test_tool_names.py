from __future__ import annotations

import pytest

from mira_megatron.rubric.tool_names import names_a_change, names_a_handover


@pytest.mark.parametrize("name", ["update_order", "sendMail", "write", "delete-file", "BOOK"])
def test_names_a_change_begins_with_such_a_verb(name: str) -> None:
    assert names_a_change(name)


@pytest.mark.parametrize("name", ["", "get_order", "list_updates", "python", "7", "_" * 1000])
def test_names_a_change_other_names_do_not(name: str) -> None:
    assert not names_a_change(name)


@pytest.mark.parametrize("name", ["transfer_to_human_agents", "escalateToOperator"])
def test_names_a_handover_passes_on_to_a_person(name: str) -> None:
    assert names_a_handover(name)


@pytest.mark.parametrize("name", ["transfer_money", "get_agent", "find_human"])
def test_names_a_handover_other_names_do_not(name: str) -> None:
    assert not names_a_handover(name)
