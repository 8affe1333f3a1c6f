"""The suite that every family passes, on each of them; see `contract.py`."""

import pytest

pytest.register_assert_rewrite("contract")

from contract import *  # noqa: E402, F403
