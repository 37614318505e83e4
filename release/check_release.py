"""Checks whether what is here can be released, and says what a person has to do besides.

python release/check_release.py [--version 0.2.0] [--quick]

It changes nothing. Exit status 1 when something is missing. With ``--quick`` nothing is built.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from align import aligned
from own_distributions import ROOT, distributions

TO_DO = (
    "make check && make test && make test-system && make test-clients   (or .ci/run on a clean clone)",
    "make dist, then upload dist/* with your tool for that; anywire itself last, since the others need it by version",
    "git tag v{version}, and push the tag",
    "python release/align.py --version NEXT for what comes then",
)
Check = Callable[[str], Iterator[str]]


def versions(version: str) -> Iterator[str]:
    """One version, with exact pins, metadata, licences and extras as the core has them."""
    stale = [
        path.relative_to(ROOT) for path, text in aligned().items() if not path.is_file() or path.read_text() != text
    ]
    if stale:
        yield f"not aligned: {', '.join(map(str, stale))}: run `python release/align.py`"
    found = distributions()[0].project["version"]
    if found != version:
        yield f"the distributions have version {found}: run `python release/align.py --version {version}`"
    if f"v{version}" in git("tag", "--list").split():
        yield f"there is a tag v{version} already"


def addresses(version: str) -> Iterator[str]:
    """Where readers of an index find the source and the documentation."""
    if not distributions()[0].project.get("urls"):
        yield "no [project.urls] in pyproject.toml: add Source, Documentation and Changelog, then run release/align.py"


def changelog(version: str) -> Iterator[str]:
    """What has changed stands under this version, with a date."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", text, re.MULTILINE):
        yield f"CHANGELOG.md has no line `## [{version}] - YYYY-MM-DD`"
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL)
    if unreleased is None:
        yield "CHANGELOG.md has no section [Unreleased] for what comes next"
    elif re.search(r"^- ", unreleased[1], re.MULTILINE):
        yield "CHANGELOG.md has lines under [Unreleased]: move them under the version"


def tree(version: str) -> Iterator[str]:
    """Nothing is left uncommitted."""
    if left := git("status", "--porcelain").splitlines():
        yield f"{len(left)} files are not committed, such as {left[0][3:]}"


def constraints(version: str) -> Iterator[str]:
    """What all of it was tested with is named in constraints.txt."""
    named = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    own = {each.name for each in distributions()}
    needed = {Requirement(line).name for each in distributions() for line in each.required} - own
    for name in sorted(canonicalize_name(each) for each in needed):
        if name not in named:
            yield f"constraints.txt has no version of {name}"


def reference(version: str) -> Iterator[str]:
    """The generated pages say what the code does."""
    done = run(sys.executable, "docs/generate.py", "--check")
    if done.returncode:
        yield done.stderr.strip() or "docs/generate.py --check fails"


def site(version: str) -> Iterator[str]:
    """The documentation builds as a site, with every link leading somewhere."""
    if importlib.util.find_spec("material") is None:
        yield "mkdocs-material is not installed: make site installs it"
        return
    with tempfile.TemporaryDirectory(prefix="anywire-site-") as folder:
        done = run(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder)
    if done.returncode:
        yield done.stderr.strip()


def files(version: str) -> Iterator[str]:
    """Wheels and source distributions have all of their files, their licence and metadata that an index takes."""
    from built_files import faults
    from make_dist import make_dist

    with tempfile.TemporaryDirectory(prefix="anywire-dist-") as folder:
        make_dist(Path(folder))
        for each in distributions():
            yield from faults(each, Path(folder))


QUICK: tuple[Check, ...] = (versions, addresses, changelog, tree, constraints)
WHOLE: tuple[Check, ...] = (*QUICK, reference, site, files)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def git(*arguments: str) -> str:
    return run("git", *arguments).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default=distributions()[0].project["version"], help="default: the one that is set")
    parser.add_argument("--quick", action="store_true", help="build nothing")
    given = parser.parse_args()
    failed = 0
    for check in QUICK if given.quick else WHOLE:
        faults = list(check(given.version))
        failed += bool(faults)
        print(f"{'missing' if faults else 'ok':8}{check.__name__}: {(check.__doc__ or '').strip()}", flush=True)
        for each in faults:
            print(f"        - {each}")
    print("\nBy hand:")
    for each in TO_DO:
        print(f"  - {each.format(version=given.version)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
