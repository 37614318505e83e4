"""What every wait of tests and benchmarks is multiplied by on a machine that does other things too."""

import os

FACTOR = float(os.environ.get("ANYWIRE_TEST_PATIENCE", "1"))
