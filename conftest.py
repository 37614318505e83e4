"""What every test of the repository is held to, wherever it lies."""

from hypothesis import settings
from tests.long_form import SOAK, examples

pytest_plugins = ["tests.loop_faults", "tests.nothing_missing", "tests.patience"]

# The same examples at every run. The long form draws others each time; what fails prints how to draw it again.
settings.register_profile("same", derandomize=True)
settings.register_profile("long", max_examples=examples(100), print_blob=True)
settings.load_profile("long" if SOAK else "same")
