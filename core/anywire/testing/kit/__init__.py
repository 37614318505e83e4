"""The tests of `anywire.testing.transport_kit`, by topic."""
