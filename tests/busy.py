"""Runs a command while loops keep the processor busy, and ends them with it.

python tests/busy.py LOOPS COMMAND...
"""

from __future__ import annotations

import signal
import subprocess
import sys

# A loop ends with the process that started it too, however that ends.
LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def main() -> int:
    loops, command = int(sys.argv[1]), sys.argv[2:]
    started: list[subprocess.Popen[bytes]] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        started += [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(loops)]
        print(f"{loops} busy loops: {' '.join(str(each.pid) for each in started)}", flush=True)
        return subprocess.run(command, check=False).returncode
    finally:
        for each in started:
            each.kill()
        for each in started:
            each.wait()


if __name__ == "__main__":
    sys.exit(main())
