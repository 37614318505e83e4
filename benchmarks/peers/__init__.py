"""Other routers and Anywire on the same work, in one interleaved run: ``python -m benchmarks.peers``."""
