"""See `peers.command`: what is imported here is found beside this package, wherever the command is given."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from peers.command import main

    main()
