"""Builds the source distribution of one distribution, and its wheel from that: python release/build_one.py FOLDER OUT.

It asks setuptools in this process, as a front end of builds would in five that each load it anew. `make_dist` runs it.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from pathlib import Path

from setuptools import build_meta


def build_one(folder: Path, out: Path) -> None:
    """Build what is in ``folder``, which may be written to, into ``out``."""
    os.chdir(folder)
    source = build_meta.build_sdist(str(out))
    with tempfile.TemporaryDirectory(prefix="anywire-sdist-") as unpacked:
        with tarfile.open(out / source) as archive:
            archive.extractall(unpacked, filter="data")
        os.chdir(Path(unpacked) / source.removesuffix(".tar.gz"))
        build_meta.build_wheel(str(out))
        os.chdir(folder)


if __name__ == "__main__":
    build_one(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
