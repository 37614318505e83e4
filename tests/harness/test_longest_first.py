"""Where several processes share the tests, files that may take long begin before the others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = "import pytest\ndef test_it(): pass\n"
FILES = {
    "a_few": QUICK,
    "b_many": "import pytest\n@pytest.mark.parametrize('at', range(4))\ndef test_many(at): pass\n",
    "c_brief": f"{QUICK}pytestmark = pytest.mark.timeout(30)\n",
    "d_long": f"{QUICK}pytestmark = pytest.mark.timeout(600)\n",
    "e_one_long": f"{QUICK}@pytest.mark.timeout(timeout=600)\ndef test_two(): pass\n",
}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--numprocesses", "0"), list(FILES)),
        (("--numprocesses", "1", "--dist", "loadfile"), ["e_one_long", "d_long", "b_many", "a_few", "c_brief"]),
    ],
    ids=["alone", "shared"],
)
def test_long_files_come_first(
    request: pytest.FixtureRequest, tmp_path: Path, options: tuple[str, ...], wanted: list[str]
) -> None:
    for name, text in FILES.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\ntimeout = 120\n")
    plain = ("-p", "no:cacheprovider")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.longest_first", "-v", *plain, *options, tmp_path],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    ran = [line for line in run.stdout.splitlines() if "PASSED" in line]
    assert list(dict.fromkeys(re.findall(r"test_(\w+)\.py", "\n".join(ran)))) == wanted
