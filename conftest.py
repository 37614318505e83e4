"""What every test of the repository is held to, wherever it lies."""

import os

from hypothesis import settings

pytest_plugins = ["tests.loop_faults", "tests.patience"]

# The same examples at every run. The long form draws others each time; what fails prints how to draw it again.
settings.register_profile("same", derandomize=True)
settings.register_profile("soak", max_examples=2000, print_blob=True, deadline=None)
settings.load_profile("soak" if os.environ.get("ANYWIRE_SOAK") else "same")
