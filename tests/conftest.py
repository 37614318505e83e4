"""What tests of every kind share."""

import random

import pytest


@pytest.fixture(scope="session")
def dds_domain() -> int:
    """A DDS domain of this test run alone."""
    return random.SystemRandom().randint(10, 200)
