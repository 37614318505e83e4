"""What is said of a running model is what runs, whatever becomes of its file and of the registry meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.models.served_models import Answer, Rig, chat, entry, running, write_registry
from tests.models.simulated_servers import Behaviour
from tests.models.tiny_model import tiny, written_tiny

from anywire.errors import EngineFailed
from anywire.offers import Offer
from anywire.testing.patience import expect
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.local_models.models import LocalModels
from anywire_engine_models.model_files import weights
from anywire_engine_models.model_files.named_weights import NamedWeights, Weights

__all__ = ["tiny", "written_tiny"]  # fixtures

pytestmark = pytest.mark.timeout(60)
# ruff: noqa: ASYNC240 - small files of tests

T, OTHER = "local:t:1", "local:other:1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.json"


def of_file(path: Path, **settings: Any) -> dict[str, Any]:
    return entry("t") | {"model_file_path": str(path), "settings": settings}


def trained_further(path: Path) -> bytes:
    """Other weights of the same size."""
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    return bytes(data)


def replace(path: Path) -> str:
    """Put other weights in the place of ``path``, as a download does; return their digest."""
    new = path.with_name("new")
    new.write_bytes(trained_further(path))
    new.replace(path)
    return weights.digest(path)


def offer(rig: Rig) -> Offer:
    return next(each for each in rig.engine.status().offers if each.model == T)


async def until_offered(rig: Rig, digest: str) -> None:
    await expect(rig.engine.until(lambda: offer(rig).digest == digest), f"an offer of {digest or 'no weights'}")


async def reread(rig: Rig, file: Path, *entries: dict[str, Any]) -> None:
    """Have the registry changed, and wait until all that follows from that is told: a further model has its digest."""
    other = file.with_name("other.gguf")
    other.write_bytes(b"GGUF" + os.urandom(8))
    digest = weights.digest(other)
    write_registry(file, *entries, entry("other") | {"model_file_path": str(other), "weights": digest})

    def is_told() -> bool:
        return any((each.model, each.digest) == (OTHER, digest) for each in rig.engine.status().offers)

    await expect(rig.engine.until(is_told), "the digest of the further model")


async def test_a_running_model_is_offered_with_the_weights_that_its_server_has_read(file: Path, tiny: Path) -> None:
    write_registry(file, of_file(tiny))
    before = weights.digest(tiny)
    async with running(file) as rig:
        await until_offered(rig, before)
        await rig.command("start", model=T)
        after = replace(tiny)
        await reread(rig, file, of_file(tiny))
        assert (offer(rig).state, offer(rig).digest) == ("ready", before)
        (status,) = await rig.command("status", model=T)
        assert status["digest"] == before
        await rig.command("stop", model=T)
        await until_offered(rig, after)
        await rig.command("start", model=T)
        assert (offer(rig).state, offer(rig).digest) == ("ready", after)


async def test_a_start_after_the_file_was_replaced_is_offered_with_the_new_weights(file: Path, tiny: Path) -> None:
    """Nobody has told the registry of it."""
    write_registry(file, of_file(tiny))
    async with running(file) as rig:
        await until_offered(rig, weights.digest(tiny))
        after = replace(tiny)
        await rig.command("start", model=T)
        assert (offer(rig).state, offer(rig).digest, offer(rig).features["resume"]) == ("ready", after, True)


async def test_weights_that_are_replaced_while_they_are_loaded_have_no_name(file: Path, tiny: Path) -> None:
    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        if number == 1:
            replace(tiny)
        return Behaviour()

    write_registry(file, of_file(tiny))
    async with running(file, behave=behave) as rig:
        await until_offered(rig, weights.digest(tiny))
        await rig.command("start", model=T)
        assert (offer(rig).state, offer(rig).digest, offer(rig).features["resume"]) == ("ready", "", False)
        assert not rig.engine.resumable(chat(T))
        await rig.command("stop", model=T)
        await rig.command("start", model=T)
        assert (offer(rig).digest, offer(rig).features["resume"]) == (weights.digest(tiny), True)
        assert rig.engine.resumable(chat(T))


async def test_weights_that_are_written_to_under_a_running_server_lose_their_name(file: Path, tiny: Path) -> None:
    write_registry(file, of_file(tiny))
    before = weights.digest(tiny)
    async with running(file) as rig:
        await rig.command("start", model=T)
        os.utime(tiny)
        await reread(rig, file, of_file(tiny))
        assert offer(rig).digest == before, "they are the same"
        tiny.write_bytes(trained_further(tiny))
        await reread(rig, file, of_file(tiny))
        await until_offered(rig, "")
        assert not offer(rig).features["resume"]


async def test_a_start_that_ends_while_its_file_is_compared_leaves_no_process(
    file: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def are_there(self: Weights) -> bool:
        loop.call_soon_threadsafe(compared.set)
        return go_on.wait(30)

    monkeypatch.setattr(Weights, "are_there", are_there)
    write_registry(file, of_file(tiny))
    async with running(file) as rig:
        starting = asyncio.create_task(rig.command("start", model=T))
        await expect(compared.wait(), "the comparison")
        await rig.command("stop", model=T)
        assert not rig.launcher.processes
        go_on.set()
        await asyncio.gather(starting, return_exceptions=True)
        assert offer(rig).state == "stopped"


# Tasks


async def test_no_text_is_made_of_two_weights(file: Path, tiny: Path) -> None:
    write_registry(file, of_file(tiny, on_demand=True))
    async with running(file) as rig:
        await until_offered(rig, weights.digest(tiny))
        after = replace(tiny)
        rig.api.gate.clear()
        first = chat(T)
        answer = Answer(rig.engine, first)
        await expect(rig.api.begun.wait(), "an answer")
        await until_offered(rig, after)
        assert not rig.engine.resumable(first), "it was sent by the old digest"
        assert rig.engine.resumable(chat(T, max_tokens=1)) is False, "the same task"
        rig.api.gate.set()
        await answer.reading
        assert rig.engine.resumable(first), "its next attempt is sent by the new one"
        second = Answer(rig.engine, first)
        assert await expect(second.reading, "an answer")


async def test_a_text_of_other_weights_is_not_gone_on_with(file: Path, tiny: Path) -> None:
    write_registry(file, of_file(tiny, on_demand=True))
    async with running(file) as rig:
        await until_offered(rig, weights.digest(tiny))
        replace(tiny)
        with pytest.raises(EngineFailed, match="weights"):
            await expect(Answer(rig.engine, chat(T, resume="Once upon")).reading, "an answer")
        assert not rig.api.asked
        assert await expect(Answer(rig.engine, chat(T, resume="Once upon")).reading, "an answer of the new ones")


# Settings

OF_LLAMA = ("tokenize", "detokenize")


async def test_settings_that_change_count_from_the_next_start(file: Path, tiny: Path) -> None:
    """Towards the server too: it knows its model by the name it was started with."""
    before = {"context": 256, "slots": 1, "served_name": "old", "kinds": ["chat"]}
    after = {"context": 512, "slots": 3, "served_name": "new", "kinds": ["chat", "embedding"]}
    write_registry(file, of_file(tiny, **before))
    async with running(file) as rig:
        await rig.command("start", model=T)
        await reread(rig, file, of_file(tiny, **after, on_demand=True))
        found = offer(rig)
        assert (found.context, found.slots, found.kinds, found.on_demand) == (256, 1, ("chat", *OF_LLAMA), True)
        (status,) = await rig.command("status", model=T)
        assert status["context"] == 256
        assert await expect(Answer(rig.engine, chat(T)).reading, "an answer")
        assert rig.api.asked[-1][0]["model"] == "old"
        await rig.command("stop", model=T)
        assert offer(rig).context == 512
        await rig.command("start", model=T)
        found = offer(rig)
        assert (found.context, found.slots, found.kinds) == (512, 3, ("chat", "embedding", *OF_LLAMA))
        assert await expect(Answer(rig.engine, chat(T)).reading, "an answer")
        assert rig.api.asked[-1][0]["model"] == "new"


async def test_what_a_server_has_said_does_not_count_for_one_that_is_started_otherwise(file: Path, tiny: Path) -> None:
    write_registry(file, of_file(tiny, context=256))
    async with running(file) as rig:
        await rig.command("start", model=T)
        assert await expect(Answer(rig.engine, chat(T)).reading, "an answer")
        await expect(rig.engine.until(lambda: offer(rig).context == 2048), "what the server says")
        await rig.command("stop", model=T)
        assert offer(rig).features.get("tools"), "a stopped model is offered as its server was"
        await reread(rig, file, of_file(tiny, context=512))
        assert (offer(rig).context, "tools" in offer(rig).features) == (512, False)


async def test_a_program_speaks_with_a_server_as_it_was_started(file: Path, tiny: Path) -> None:
    write_registry(file, of_file(tiny, served_name="old", command=["serve"]))
    async with running(file) as rig:  # only for what its servers answer
        config = ModelsConfig.model_validate({"registry": file, "memory_budget": 0})
        async with LocalModels(config, launcher=rig.launcher) as models:
            await models.start(T)
            write_registry(file, of_file(tiny, served_name="new", command=["serve"]))
            await models.reread()
            await models.complete(T, [{"role": "user", "content": "hi"}])
            assert rig.api.asked[-1][0]["model"] == "old"


# Reading


async def test_a_file_that_changes_while_it_is_read_is_read_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, times = weights.digest, 0

    def digest(path: Path) -> str:
        nonlocal times
        times += 1
        found = read(path)
        if times == 1:
            replace_by(path)
        return found

    def replace_by(path: Path) -> None:
        path.write_bytes(trained_further(path) + b"more")

    monkeypatch.setattr(weights, "digest", digest)
    names = NamedWeights()
    found = await names.read(str(tiny))
    assert (times, found.digest) == (2, read(tiny))
    assert (await names.read(str(tiny)), times) == (found, 2), "it is not read again"
    assert found.are_there()
    assert not found.are_overwritten()


async def test_a_file_that_is_always_written_has_no_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = NamedWeights()
    await names.read(str(tiny))

    def digest(path: Path) -> str:
        path.write_bytes(path.read_bytes() + b"more")
        return "of no file"

    monkeypatch.setattr(weights, "digest", digest)
    tiny.write_bytes(trained_further(tiny) + b"more")
    with pytest.raises(OSError, match="being written"):
        await names.read(str(tiny))
    assert names.digest(str(tiny)) == "", "the old name is that of other weights"
