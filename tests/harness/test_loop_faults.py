"""A test in which an event loop meets what nobody handles, or a task is left, fails; its neighbours do not."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest

FILE = """
import asyncio
import contextlib

import pytest

kept = []


async def fails():
    raise ValueError("nobody asks")


def test_callback_in_a_loop_of_its_own():
    async def main():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    asyncio.run(main())


async def test_callback():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)


async def test_exception_of_a_task():
    task = asyncio.create_task(fails(), name="unasked")
    await asyncio.sleep(0)


@pytest.fixture
async def failing():
    yield asyncio.create_task(fails(), name="held by a fixture")


async def test_exception_of_a_task_of_a_fixture(failing):
    await asyncio.sleep(0)


async def test_exception_of_a_task_in_a_cycle():
    task = asyncio.create_task(fails(), name="in a cycle")
    task.itself = [task]
    await asyncio.sleep(0)


async def test_task_left():
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))


@pytest.fixture
async def leaving():
    yield
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten by a fixture"))


async def test_task_left_by_a_fixture(leaving):
    pass


async def test_coroutine_never_awaited():
    asyncio.sleep(1)


async def test_generator_that_fails_when_it_is_collected():
    async def numbers():
        try:
            yield 1
        finally:
            raise ValueError("while closing")

    async for _ in numbers():
        break


async def test_good_task():
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()


async def test_good_failure():
    with contextlib.suppress(ValueError):
        await asyncio.create_task(fails())


async def test_good_wanted_fault(loop_faults):
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    assert "division by zero" in loop_faults.found.pop()
"""
WRONG = {
    "callback_in_a_loop_of_its_own": "ZeroDivisionError",
    "callback": "ZeroDivisionError",
    "exception_of_a_task": "unasked",
    "exception_of_a_task_of_a_fixture": "held by a fixture",
    "exception_of_a_task_in_a_cycle": "in a cycle",
    "task_left": "forgotten",
    "task_left_by_a_fixture": "forgotten by a fixture",
    "coroutine_never_awaited": "was never awaited",
    "generator_that_fails_when_it_is_collected": "while closing",
}


@pytest.fixture(scope="module")
def failed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What failed in `FILE`, and what was said of it."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "test_faulty.py").write_text(FILE)
    settings = ("asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function", "filterwarnings = error")
    (folder / "pytest.ini").write_text("\n".join(["[pytest]", *settings]))
    command = [sys.executable, "-m", "pytest", "-p", "tests.loop_faults", "-p", "no:cacheprovider"]
    command += [f"--junitxml={folder / 'found.xml'}", str(folder)]
    run = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, check=False)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    cases = ElementTree.parse(folder / "found.xml").iter("testcase")
    return {case.attrib["name"]: "".join(case.itertext()) for case in cases if list(case)}


@pytest.mark.parametrize(("name", "said"), WRONG.items())
def test_fault_fails_its_test_and_is_named(failed: dict[str, str], name: str, said: str) -> None:
    assert said in failed[f"test_{name}"]


def test_nothing_else_fails(failed: dict[str, str]) -> None:
    assert set(failed) == {f"test_{name}" for name in WRONG}
