"""Whether the llama.cpp that is installed can use graphics cards, and what becomes of its models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.models.served_models import FewDevices, entry, running, write_registry
from tests.models.started_servers import nothing_left
from tests.models.tiny_model import tiny, written_tiny

from anywire.testing.patience import FACTOR
from anywire_engine_models.llama_cpp import cards
from anywire_engine_models.llama_cpp.cards import LlamaCards

__all__ = ["tiny", "written_tiny"]  # fixtures

pytestmark = pytest.mark.timeout(60 * FACTOR)

NONE = "Available devices:\n  (none)"
CARD = "ggml_cuda_init: found 1 CUDA devices\nAvailable devices:\n  CUDA0: NVIDIA H200 (143167 MiB, 142000 MiB free)"
PROCESSORS = "Available devices:\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n  CPU: AMD EPYC (1 MiB, 1 MiB free)"

Program = Callable[..., str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Makes a llama-server that says this of its devices."""

    def make(says: str, *, code: int = 0, then: str = "") -> str:
        path = tmp_path / "llama-server"
        count = f"open({str(tmp_path / 'asked')!r}, 'a').write('x')"
        path.write_text(f"#!{sys.executable}\nimport sys, time\n{count}\nprint({says!r}, flush=True)\n{then}\n")
        path.write_text(path.read_text() + f"sys.exit({code} if sys.argv[1:] == ['--list-devices'] else 9)\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("says", "usable"), [(NONE, False), (CARD, True), (PROCESSORS, False), ("unknown argument: --list-devices", None)]
)
async def test_a_llama_server_is_asked_and_its_answer_kept(
    program: Program, tmp_path: Path, says: str, usable: bool | None
) -> None:
    server, asked = program(says, code=usable is None), LlamaCards()
    for _ in range(2):
        assert await asked.are_usable(server) is usable
    assert len((tmp_path / "asked").read_text()) == (2 if usable is None else 1), "no answer is asked for again"
    await asked.close()


async def test_one_that_does_not_answer_is_ended(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "PATIENCE", 0.2)
    with nothing_left():
        asked = LlamaCards()
        assert await asked.are_usable(program("", then="time.sleep(1000)")) is None
        await asked.close()


async def test_nobody_knows_of_one_that_is_not_there() -> None:
    assert await LlamaCards().are_usable("/nothing/llama-server") is None


async def test_xllamacpp_is_asked_too() -> None:
    pytest.importorskip("xllamacpp")
    assert await LlamaCards().are_usable("xllamacpp") is not None


@pytest.mark.parametrize(("says", "device"), [(NONE, "cpu"), (CARD, "gpu:0"), ("?", "gpu:0")])
async def test_a_model_goes_to_a_card_only_if_its_llama_cpp_can_use_one(
    tmp_path: Path, tiny: Path, program: Program, says: str, device: str
) -> None:
    llama = entry("llama") | {"model_file_path": str(tiny), "settings": {}}
    registry = write_registry(tmp_path / "models.json", llama, entry("own"))
    async with running(registry, devices=FewDevices(("gpu:0",)), server=program(says)) as rig:
        (*_, last) = await rig.command("start", model="local:llama:1")
        assert last["device"] == device
        reason = "the llama.cpp that is installed can use no graphics card (gpu:0 simulated: 1 devices)"
        assert last["device_reason"] == (reason if device == "cpu" else "simulated: 1 devices")
        (*_, last) = await rig.command("start", model="local:own:1")
        assert last["device"] == "gpu:0", "what another server can do is not known"
