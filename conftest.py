"""What every test of the repository is held to, wherever it lies."""

import os

import pytest
from hypothesis import HealthCheck, settings
from tests.long_form import SOAK, examples

pytest_plugins = ["tests.longest_first", "tests.loop_faults", "tests.nothing_missing", "tests.patience"]

# The same examples at every run. The long form draws others each time; what fails prints how to draw it again.
# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
ANY_SPEED = settings.get_profile("any speed")
settings.register_profile("same", ANY_SPEED, max_examples=40, derandomize=True)
settings.register_profile("long", ANY_SPEED, max_examples=examples(100), print_blob=True)
settings.load_profile("long" if SOAK else "same")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two processors: tests wait, for leases and for processes, as long as they compute."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)
