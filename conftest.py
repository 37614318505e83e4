"""What every test of the repository is held to, wherever it lies."""

import os

import pytest
from hypothesis import settings
from tests.long_form import SOAK, examples

pytest_plugins = ["tests.loop_faults", "tests.nothing_missing", "tests.patience"]

# The same examples at every run. The long form draws others each time; what fails prints how to draw it again.
settings.register_profile("same", max_examples=40, derandomize=True)
settings.register_profile("long", max_examples=examples(100), print_blob=True)
settings.load_profile("long" if SOAK else "same")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two processors: tests wait, for leases and for processes, as long as they compute."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)
