"""Tests with stock clients run by ``make test-clients`` alone, which installs those."""

import os

collect_ignore_glob = [] if os.environ.get("ANYWIRE_CLIENTS") else ["test_*.py"]
