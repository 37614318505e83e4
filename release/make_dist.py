"""Builds the source distribution and the wheel of every distribution into a folder, from what git knows alone.

python release/make_dist.py [FOLDER] [--only NAME …]

Each wheel is built from its source distribution, as an installer does it that finds no wheel. Needs ``setuptools`` in
this environment, and no network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from own_distributions import ROOT, Distribution, distributions

RELEASED = ("pyproject.toml", "README.md", "LICENSE", "core", "plugins")
ONE = Path(__file__).with_name("build_one.py")
BUILT = ("build", "dist", "*.egg-info", "__pycache__", ".*")


def copy_tree(to: Path, root: Path = ROOT) -> None:
    """Copy the files of the repository, those that git knows; where there is no git, all but what was built. What an
    earlier build has left behind would else be in a wheel."""
    if (root / ".git").exists():
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *RELEASED],
            check=True,
            capture_output=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            source, target = root / name, to / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        return
    for name in RELEASED:
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns(*BUILT))
        else:
            shutil.copy2(root / name, to)


def build(found: Sequence[Distribution], out: Path) -> list[Path]:
    """The files that are built of ``found`` into ``out``. Raises `subprocess.CalledProcessError`."""
    out.mkdir(parents=True, exist_ok=True)

    def one(distribution: Distribution) -> None:
        command = [sys.executable, str(ONE), str(distribution.folder), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            raise subprocess.CalledProcessError(done.returncode, command)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as builders:
        list(builders.map(one, found))
    return sorted(out.iterdir())


def _environment() -> dict[str, str]:
    # Files of one commit have one time in a wheel, whenever it is built.
    told = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    epoch = {"SOURCE_DATE_EPOCH": told.stdout.strip()} if told.returncode == 0 and told.stdout.strip() else {}
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | epoch


def make_dist(out: Path, only: Sequence[str] = ()) -> list[Path]:
    """Build all distributions, or those named, into ``out``, which is emptied first."""
    if out.exists():
        shutil.rmtree(out)
    with tempfile.TemporaryDirectory(prefix="anywire-dist-") as folder:
        copy_tree(Path(folder))
        found = distributions(Path(folder))
        missing = set(only) - {each.name for each in found}
        if missing:
            sys.exit(f"there is no distribution {', '.join(sorted(missing))}")
        return build([each for each in found if not only or each.name in only], out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="distributions to build")
    given = parser.parse_args()
    built = make_dist(given.folder, given.only)
    size = sum(path.stat().st_size for path in built)
    print(f"{len(built)} files, {size / 2**20:.1f} MiB, in {given.folder}")


if __name__ == "__main__":
    main()
