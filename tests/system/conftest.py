"""Tests with programs that the system provides run by ``make test-system`` alone, which installs those."""

import os

collect_ignore_glob = [] if os.environ.get("ANYWIRE_SYSTEM") else ["test_*.py"]
