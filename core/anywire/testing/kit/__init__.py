"""The tests of `anywire.testing.transport_kit`, by topic."""

import pytest

TOPICS = ("clients", "deaths", "ends", "links", "messages", "pauses", "pressure", "streams", "wires")

# So that a failed assertion shows its values, as in a test file.
pytest.register_assert_rewrite(*(f"{__name__}.{topic}" for topic in TOPICS))
