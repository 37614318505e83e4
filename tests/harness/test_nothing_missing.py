"""Where nothing may be missing, a test that is skipped for something that is fails; another skip does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "test_module.py": "import pytest\npytest.importorskip('no_such_module', reason='missing: no_such_module')\n",
    "test_mark.py": "import pytest\n@pytest.mark.skipif(True, reason='missing: a program')\ndef test_it(): pass\n",
    "test_call.py": "import pytest\ndef test_it(): pytest.skip('missing: root')\n",
    "test_other.py": "import pytest\ndef test_it(): pytest.skip('does not concern this transport')\n",
    "test_wrong.py": "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n",
}


@pytest.mark.parametrize(("strict", "failed"), [("1", {"module", "mark", "call"}), ("", set())], ids=["ci", "usual"])
def test_what_is_missing_fails_only_where_nothing_may_be(
    request: pytest.FixtureRequest, tmp_path: Path, strict: str, failed: set[str]
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    options = ("-p", "tests.nothing_missing", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-rA")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=request.config.rootpath,
        env=os.environ | {"ANYWIRE_NOTHING_MISSING": strict},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert {
        name for name in ("module", "mark", "call", "other", "wrong") if f"test_{name}.py" in " ".join(said)
    } == failed
    assert "cannot run here: missing:" in run.stdout or not failed
