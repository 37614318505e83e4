"""Downloads from a registry: whole or not there, resumed, and nothing outside of their folder."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.desktop.ollama_registry import MODEL_LAYER, OllamaRegistry, breaks_off, digest_of, says, without_ranges

from anywire.errors import AnywireError, ConfigError, EngineFailed, InvalidRequest, ModelNotFound
from anywire.testing.patience import expect
from anywire_desktop import downloads
from anywire_desktop.downloads import MIB, Downloads, Progress, Reference

WEIGHTS = random.Random(1).randbytes(3 * MIB + 12_345)


@pytest_asyncio.fixture
async def registry() -> AsyncIterator[OllamaRegistry]:
    async with OllamaRegistry().up() as registry:
        yield registry


@pytest_asyncio.fixture
async def loading(registry: OllamaRegistry, tmp_path: Path) -> AsyncIterator[Loading]:
    loading = Loading(registry, tmp_path / "models")
    yield loading
    await loading.downloads.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(downloads, "LAST_PAUSE", 0.002)


class Loading:
    """``told`` is the progress that was told."""

    def __init__(self, registry: OllamaRegistry, root: Path) -> None:
        self.registry, self.root, self.downloads = registry, root, Downloads()
        self.told: list[Progress] = []

    async def load(self, name: str = "tiny", version: str = "1", **where: Any) -> Path:
        async def tell(progress: Progress) -> None:
            self.told.append(progress)

        reference = Reference.read(where.get("url", self.registry.url), "library", name, version)
        return await expect(self.downloads.download(reference, self.root, tell), "the download")

    def blob(self, data: bytes = WEIGHTS) -> Path:
        return self.root / "blobs" / digest_of(data).replace(":", "-")

    def partial(self) -> Path:
        return self.blob().with_name(self.blob().name + "-partial")


async def test_a_model_lies_as_ollama_lays_it(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    manifest = await loading.load()
    host = loading.registry.url.removeprefix("http://")
    assert manifest == loading.root / "manifests" / host / "library" / "tiny" / "1"
    assert json.loads(manifest.read_bytes())["layers"][0]["size"] == len(WEIGHTS)
    assert loading.blob().read_bytes() == WEIGHTS
    assert not loading.partial().exists()
    weights = [each for each in loading.told if each.digest == digest_of(WEIGHTS)]
    assert [each.downloaded // MIB for each in weights] == [1, 2, 3, 3]
    assert weights[-1].downloaded == weights[-1].total == len(WEIGHTS)
    assert {each.filename for each in weights} == {loading.blob().name}


async def test_what_is_there_is_not_loaded_again(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    await loading.load()
    before = len(loading.registry.ranges)
    await loading.load()
    assert len(loading.registry.ranges) == before
    loading.blob().write_bytes(WEIGHTS[:-1])  # its size is wrong: it is no good
    await loading.load()
    assert loading.blob().read_bytes() == WEIGHTS


async def test_a_download_goes_on_where_it_broke_off(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    loading.registry.answers = [breaks_off(MIB), says(503), breaks_off(1000), breaks_off(0)]
    await loading.load()
    assert loading.blob().read_bytes() == WEIGHTS
    begins = [int(each.removeprefix("bytes=").rstrip("-")) for each in loading.registry.ranges if each]
    assert begins == sorted(begins)
    assert begins[-1] > 0, "it began anew"


async def test_a_download_that_was_given_up_goes_on_later(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    loading.registry.answers = [breaks_off(2 * MIB), *[says(503)] * downloads.TRIES]
    with pytest.raises(EngineFailed, match=r"broke off 5 times.*503.*what came is kept"):
        await loading.load()
    kept = loading.partial().stat().st_size
    assert 0 < kept <= 2 * MIB
    assert not list(loading.root.glob("manifests/**/tiny/*")), "it is not whole, and has a manifest"
    await loading.load()
    assert loading.registry.ranges[-1] == f"bytes={kept}-" or f"bytes={kept}-" in loading.registry.ranges
    assert loading.blob().read_bytes() == WEIGHTS


async def test_a_download_that_is_cancelled_goes_on_later(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    begun, hold = asyncio.Event(), asyncio.Event()

    async def tell(progress: Progress) -> None:
        if progress.downloaded > MIB:
            begun.set()
            await hold.wait()

    reference = Reference.read(loading.registry.url, "library", "tiny", "1")
    task = asyncio.create_task(loading.downloads.download(reference, loading.root, tell))
    await expect(begun.wait(), "a MiB has come")
    with pytest.raises(InvalidRequest, match="already"):
        await loading.load()
    task.cancel()
    await asyncio.wait({task})
    assert WEIGHTS.startswith(loading.partial().read_bytes())
    assert loading.partial().stat().st_size >= MIB
    await loading.load()
    assert loading.blob().read_bytes() == WEIGHTS
    assert any(loading.registry.ranges)


async def test_an_answer_that_ends_early_is_no_whole_file(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    loading.registry.answers = [says(200, WEIGHTS[:MIB])]
    await loading.load()
    assert loading.blob().read_bytes() == WEIGHTS
    assert f"bytes={MIB}-" in loading.registry.ranges


async def test_a_registry_without_ranges_begins_anew(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    loading.registry.answers = [breaks_off(MIB), without_ranges]
    await loading.load()
    assert loading.blob().read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (says(200, WEIGHTS[:-1] + b"!"), "another digest"),
        (says(200, WEIGHTS + b"more"), "more"),
        (says(404), "status 404"),
        (says(206, WEIGHTS[5:], **{"Content-Range": f"bytes 5-{len(WEIGHTS)}/{len(WEIGHTS)}"}), "another part"),
    ],
)
async def test_what_is_wrong_is_refused_and_loaded_anew_later(loading: Loading, answer: Any, said: str) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    loading.registry.answers = [answer]
    with pytest.raises(EngineFailed, match=said):
        await loading.load()
    assert not loading.blob().exists()
    await loading.load()
    assert loading.blob().read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": []},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc", "size": 1}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:00", "size": -1}]},
        {"layers": "none"},
    ],
)
async def test_a_manifest_that_is_none_writes_nothing(loading: Loading, changes: dict[str, Any]) -> None:
    loading.registry.add("tiny", WEIGHTS, "1", **changes)
    with pytest.raises(EngineFailed):
        await loading.load()
    assert not loading.root.exists() or not list(loading.root.rglob("*"))


async def test_a_model_that_is_not_there_is_named(loading: Loading) -> None:
    with pytest.raises(ModelNotFound, match="library/tiny:1"):
        await loading.load()
    with pytest.raises(EngineFailed, match="cannot be reached"):
        await loading.load(url="http://127.0.0.1:9")


async def test_a_file_whose_size_nobody_tells_does_not_fill_the_disk(
    loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = {"mediaType": MODEL_LAYER, "digest": digest_of(WEIGHTS), "size": 0}
    loading.registry.add("tiny", WEIGHTS, "1", layers=[layer], config=None)
    kept = downloads.KEPT_FREE
    monkeypatch.setattr(downloads, "KEPT_FREE", 1 << 60)
    with pytest.raises(ConfigError, match=r"MiB free.*make room; what came is kept"):
        await loading.load()
    assert loading.partial().stat().st_size <= 2 * MIB
    monkeypatch.setattr(downloads, "KEPT_FREE", kept)
    await loading.load()
    assert loading.blob().read_bytes() == WEIGHTS


async def test_a_disk_without_room_is_told_before(loading: Loading, monkeypatch: pytest.MonkeyPatch) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    monkeypatch.setattr(downloads, "KEPT_FREE", 1 << 60)
    with pytest.raises(ConfigError, match=r"MiB free.*make room"):
        await loading.load()
    assert loading.registry.ranges == []


async def test_a_folder_that_cannot_be_written_is_told(loading: Loading) -> None:
    loading.registry.add("tiny", WEIGHTS, "1")
    loading.root.mkdir()
    (loading.root / "blobs").write_text("a file in the place of the folder")
    with pytest.raises(ConfigError, match="cannot be"):
        await loading.load()


@given(
    st.sampled_from(
        ["https://registry.ollama.ai", "http://h:1/", "ftp://h", "https://u@h", "https://", "https://..", "x"]
    ),
    *[st.text(st.sampled_from("a.:/\\-_ \0é") | st.characters(), max_size=6) for _ in range(3)],
)
def test_no_name_leads_out_of_the_folder(url: str, library: str, name: str, version: str) -> None:
    root = Path("/models")
    try:
        reference = Reference.read(url, library, name, version)
    except AnywireError:
        return
    parts = reference.manifest_path(root).parts
    assert parts[:3] == ("/", "models", "manifests")
    assert len(parts) == 7
    assert not {".", "..", ""} & set(parts)


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("smollm2", "", ("library", "smollm2", "latest")),
        ("smollm2", "135m", ("library", "smollm2", "135m")),
        ("smollm2:135m", "", ("library", "smollm2", "135m")),
        ("ann/mine:2", "1", ("ann", "mine", "2")),
    ],
)
def test_names_are_read_as_ollama_writes_them(name: str, version: str, expected: tuple[str, str, str]) -> None:
    found = Reference.read("https://registry.ollama.ai/", "library", name, version)
    assert (found.library, found.name, found.version) == expected
