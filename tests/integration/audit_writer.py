"""A process that writes an audit log until it is killed: audit_writer.py FOLDER. Prints each entry that is written."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from anywire_service_audit.chain import Entry
from anywire_service_audit.journal import Journal


def main(folder: Path) -> None:
    journal = Journal(folder, max_bytes=4096, keep=1000)
    for number in itertools.count():
        _, error = journal.append([Entry(time.time(), "test.entry", target=f"{number}")])
        if error is not None:
            raise error
        print(number, journal.folder.name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
