"""Our code on other systems, as far as that can be seen here: without what macOS and Windows lack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.long_form import SOAK

from anywire.testing.patience import FACTOR
from reserved import free_port

SCRIPT = Path(__file__).with_name("other_system.py")
SENTENCE = "needs Linux or macOS: on Windows, run it in WSL 2 or in a container"
WITH_DDS = ("anywire_dds", "anywire_engine_llama_dds", "anywire_gateway_llama_dds", "anywire_gateway_predecessor")


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")}
    kept.pop("XDG_RUNTIME_DIR", None)
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(folder), "HOME": str(folder)}


def as_on_windows(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "windows", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * FACTOR,
    )


def test_every_module_imports_or_says_what_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        # What experiments are evaluated with takes long to load.
        [sys.executable, str(SCRIPT), "import", *(() if SOAK else ("anywire_experiment",))],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=110 * FACTOR,
    )
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout.splitlines()[-1])
    assert failed["here"] == {}
    assert failed["macos"] == {}
    for name, error in failed["windows"].items():
        assert name.partition(".")[0] in WITH_DDS, (name, error)
        assert error == f"ConfigError: the transport dds {SENTENCE}", name
    assert "anywire_dds.transport" in failed["windows"], "it sees what is missing"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("up", "--engine", "synthetic"), f"the transport dds {SENTENCE}"),
        (("up", "--engine", "synthetic", "--transport", "zeromq"), f"the launcher local {SENTENCE}"),
        (("keys", "create", "--file", "k.json"), ""),
        (("init", "--transport", "zeromq", "--engine", "openai"), ""),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_a_command_works_or_says_what_it_needs(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = as_on_windows(tmp_path, *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    assert sentence in done.stderr
    assert done.returncode == (1 if sentence else 0), done.stderr


def test_an_orchestrator_with_its_agents_answers_in_one_process(tmp_path: Path) -> None:
    port = free_port()
    command = ["up", "--agents", "2", "--engine", "synthetic", "--transport", "memory", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), "windows", *command],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        try:
            ready = up.stdout.readline()
            assert ready == f"ready: http://127.0.0.1:{port} (2 agents, memory)\n", up.communicate()[1]
            question = {"model": "synthetic", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=question, timeout=20 * FACTOR, trust_env=False
            )
            assert answer.status_code == 200, answer.text
        finally:
            up.send_signal(signal.SIGINT)
            said = up.communicate(timeout=30 * FACTOR)[1]
    assert up.returncode == 0, said
    assert "Traceback" not in said, said
