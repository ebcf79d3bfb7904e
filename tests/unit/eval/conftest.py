from __future__ import annotations

import os

import pytest

from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.sandbox.contract import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """A sandbox of level 3; without one the test skips, and fails under CI=true."""
    try:
        return best_sandbox()
    except ValueError as error:
        message = f"{error}. Tests: make sandbox"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
