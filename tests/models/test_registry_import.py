"""Importers: what other programs keep becomes entries, and what cannot be used is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.models.gguf_bytes import LLAMA, gguf_bytes

from anywire.errors import ConfigError, InvalidRequest
from anywire_engine_models.commands import with_defaults
from anywire_engine_models.registry.entry import Entry
from anywire_engine_models.registry.file import Registry
from anywire_engine_models.registry.importers import import_models
from anywire_engine_models.registry.importers.gguf_folder import entry_of_file
from anywire_engine_models.registry.importers.imported import Imported
from anywire_engine_models.registry.importers.llama_swap_macros import filled_in
from anywire_engine_models.registry.importers.ollama_store import entry_of_manifest, store_at
from tests import tiny_gguf


def identifiers(found: Imported) -> list[str]:
    return [each.full_identifier for each in found.entries]


def reasons(found: Imported) -> dict[str, str]:
    return {Path(each.about).name: each.text for each in found.skipped}


async def kept(found: Imported, path: Path) -> tuple[Entry, ...]:
    """What a registry holds after the import."""
    registry = Registry(path)
    await registry.add_new(found.entries)
    assert registry.fault == ""
    return registry.entries


async def test_a_folder_of_files_is_imported(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "deep" / "er").mkdir(parents=True)
    tiny_gguf.write(folder / "Tiny-1M.F32.gguf")
    for name, values in {
        "deep/er/big-Q8_0-00001-of-00002.gguf": LLAMA,
        "deep/er/big-Q8_0-00002-of-00002.gguf": {},
        "half-Q8_0-00001-of-00002.gguf": LLAMA,
        "plain.GGUF": LLAMA,
        "deep/plain.gguf": LLAMA,
        "mmproj-big.gguf": {**LLAMA, "general.architecture": "clip"},
        "lora.gguf": {**LLAMA, "general.type": "adapter"},
        "odd\x1bname.gguf": LLAMA,
    }.items():
        (folder / name).write_bytes(gguf_bytes(values))
    (folder / "cut.gguf").write_bytes(gguf_bytes()[:-1])
    (folder / "page.gguf").write_bytes(b"<html>")
    (folder / "same.gguf").symlink_to("Tiny-1M.F32.gguf")
    (folder / "nowhere.gguf").symlink_to("missing")
    (folder / "round").symlink_to(".")
    (folder / "readme.md").touch()
    os.mkfifo(folder / "pipe.gguf")
    found = import_models("gguf", folder)
    assert sorted(identifiers(found)) == ["local:Tiny-1M:F32", "local:big:Q8_0", "local:plain:latest"]
    told = reasons(found)
    expected = {
        "half-Q8_0-00001-of-00002.gguf": "half-Q8_0-00002-of-00002.gguf are missing",
        "plain.gguf": "its identifier local:plain:latest is that of",
        "mmproj-big.gguf": "it is the projector",
        "lora.gguf": "it is an adapter",
        "odd name.gguf": "`full_identifier` must be printable",
        "cut.gguf": "is cut off",
        "page.gguf": "it is a web page",
        "same.gguf": "it is the same file as",
        "nowhere.gguf": "No such file",
        "pipe.gguf": "it is no file",
    }
    told["plain.gguf"] = told.pop("plain.GGUF", "") or told["plain.gguf"]
    assert told.keys() == expected.keys()
    for name, says in expected.items():
        assert says in told[name], name
    (tiny,) = (each for each in await kept(found, tmp_path / "r.json") if each.name == "Tiny-1M")
    assert (tiny.provider, tiny.version) == ("local", "F32")
    assert tiny.model_file_path == str(folder / "Tiny-1M.F32.gguf")
    assert tiny.manifest is not None
    layer = tiny.manifest.model_layer
    assert layer is not None
    assert layer.size == (folder / "Tiny-1M.F32.gguf").stat().st_size
    assert layer.digest.startswith("blake2b-blocks:")


def test_one_file_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "m-Q4_0.gguf"
    path.write_bytes(gguf_bytes())
    assert identifiers(import_models("gguf", path)) == ["local:m:Q4_0"]
    assert with_defaults({"model_file_path": str(path)})["full_identifier"] == "local:m:Q4_0", "as `models add` has it"
    assert entry_of_file(path, "mine:a:b").full_identifier == "mine:a:b"
    with pytest.raises(ConfigError, match="No such file"):
        entry_of_file(tmp_path / "other.gguf")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("gguf", r"there is no \.gguf file in"),
        ("ollama", "is no store of Ollama: it has no folder `manifests`"),
        ("llama-swap", "cannot be read: it is no file"),
        ("nonsense", "nothing imports 'nonsense': give one of gguf, ollama, llama-swap"),
    ],
)
def test_where_there_is_nothing_that_is_told(tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        import_models(kind, tmp_path)
    with pytest.raises(InvalidRequest):
        import_models(kind, tmp_path / "missing")


MODEL, PROJECTOR, ADAPTER, SYSTEM = (
    f"application/vnd.ollama.image.{kind}" for kind in ("model", "projector", "adapter", "system")
)


def put(store: Path, name: str, digest: str = "sha256:00ff", *kinds: str, size: int | None = None) -> Path:
    """A manifest in a store."""
    size = len(gguf_bytes()) if size is None else size
    path = store / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = [{"mediaType": kind, "digest": digest, "size": size} for kind in kinds or (MODEL,)]
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": "sha256:00aa", "size": 4}
    path.write_text(json.dumps({"schemaVersion": 2, "mediaType": "m", "config": config, "layers": layers, "more": 1}))
    return path


async def test_a_store_of_ollama_is_imported(tmp_path: Path) -> None:
    store = tmp_path / ".ollama" / "models"
    (store / "blobs").mkdir(parents=True)
    (store / "blobs" / "sha256-00ff").write_bytes(gguf_bytes())
    (store / "blobs" / "sha256-0bad").write_bytes(b"{}")
    manifest = put(store, "registry.ollama.ai/library/smollm2/135m")
    put(store, "registry.ollama.ai/bob/smollm2/135m", "sha256:00ff", MODEL, PROJECTOR, ADAPTER, SYSTEM)
    put(store, "hf.co/someone/Some-GGUF/latest")
    put(store, "registry.ollama.ai/library/gone/1", "sha256:dead")
    put(store, "registry.ollama.ai/library/short/1", size=3)
    put(store, "registry.ollama.ai/library/other/1", "sha256:0bad", size=2)
    put(store, "registry.ollama.ai/library/escape/1", "sha256:../../../etc/passwd")
    put(store, "registry.ollama.ai/library/cloud/1", "sha256:00ff", "application/vnd.ollama.image.params")
    (store / "manifests/registry.ollama.ai/library/broken").mkdir()
    (store / "manifests/registry.ollama.ai/library/broken/1").write_text("{")
    (store / "manifests/registry.ollama.ai/library/huge").mkdir()
    (store / "manifests/registry.ollama.ai/library/huge/1").write_text(" " * 2_000_000)
    (store / "manifests/registry.ollama.ai/stray").touch()
    found = import_models("ollama", tmp_path / ".ollama")
    assert found == import_models("ollama", store)
    assert sorted(identifiers(found)) == [
        "hf.co:Some-GGUF:latest",
        "registry.ollama.ai:bob/smollm2:135m",
        "registry.ollama.ai:smollm2:135m",
    ]
    told = {each.about.split("/")[-2]: each.text for each in found.skipped}
    for name, says in {
        "gone": "its file cannot be read: No such file",
        "short": "its file has another size than its manifest says",
        "other": "is no GGUF file",
        "escape": "is no sha256 digest",
        "cloud": f"has no layer of the type {MODEL}",
        "broken": "its manifest is none",
        "huge": "its manifest is longer than 1 MiB",
    }.items():
        assert says in told.pop(name), name
    assert not told
    assert [(each.about, each.text.split(":")[0]) for each in found.notes] == [
        ("registry.ollama.ai:bob/smollm2:135m", "its projector is not used"),
        ("registry.ollama.ai:bob/smollm2:135m", "its adapter is not used"),
        ("registry.ollama.ai:bob/smollm2:135m", "its system prompt is not used"),
    ]
    models = {each.full_identifier: each for each in await kept(found, tmp_path / "r.json")}
    model = models["registry.ollama.ai:smollm2:135m"]
    assert model.manifest_path == str(manifest)
    assert model.model_file_path == str(store / "blobs" / "sha256-00ff")
    assert model.manifest is not None
    assert model.manifest.config is not None
    assert (model.library, model.manifest.config.size) == ("library", 4)
    assert entry_of_manifest(manifest, store_at(store)).full_identifier == "registry.ollama.ai:smollm2:135m"
    with pytest.raises(ValueError, match="it is not at manifests/PROVIDER"):
        entry_of_manifest(store / "manifests" / "stray", store)


SWAP = """
healthCheckTimeout: 500
startPort: 10001
globalTTL: 30
macros:
  "latest-llama": >
    /opt/llama-server --port ${PORT}
  "default_ctx": 4096
  "default_args": "--ctx-size ${default_ctx}"
  "models_dir": "${env.MODELS}/models"
models:
  "big":
    macros: {"default_ctx": 16384}
    cmd: |
      # ${not-a-macro} is in a comment
      ${latest-llama}
      --model ${models_dir}/big.gguf \\
      ${default_args} -np 4
      --alias "${MODEL_ID} {x}"
    env: ["CUDA_VISIBLE_DEVICES=0,1", "NAME=${MODEL_ID}{}"]
    aliases: [gpt-4o-mini]
    ttl: 60
    unloadTimeout: 7
    useModelName: "openai/${MODEL_ID}"
    filters: {stripParams: "temperature"}
  small:
    cmd: llama-server -m rel.gguf --port 9999
    proxy: "http://localhost:9999"
    checkEndpoint: v1/health
    concurrencyLimit: 1000
    cmdStop: docker stop ${PID}
    unlisted: true
  container:
    proxy: "http://127.0.0.1:${PORT}"
    cmd: docker run --rm -p ${PORT}:8080 image --model /models/in-the-container.gguf
    checkEndpoint: none
    ttl: 0
  elsewhere: {cmd: "ssh x ${PORT}", proxy: "http://192.168.1.2:80"}
  portless: {cmd: "llama-server"}
  unknown: {cmd: "${nope} ${PORT}"}
  unset: {cmd: "${env.NOT_SET} ${PORT}"}
  quoted: {cmd: "a 'b ${PORT}"}
  none: {}
  timed: {cmd: "a ${PORT}", ttl: often}
  text: nonsense
  " spaced": {cmd: "a ${PORT}"}
  5: {cmd: "a ${PORT}"}
hooks: {on_startup: {preload: [small]}}
peers: {other: {proxy: "http://192.168.1.23", models: [m]}}
"""


async def test_a_file_of_llama_swap_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/srv")
    path = tmp_path / "config.yaml"
    path.write_text(SWAP)
    found = import_models("llama-swap", path)
    assert identifiers(found) == ["big", "small", "container"]
    big, small, container = await kept(found, tmp_path / "r.json")
    assert big.model_file_path == "/srv/models/big.gguf"
    assert big.settings.command == (
        *("/opt/llama-server", "--port", "{port}", "--model", "/srv/models/big.gguf"),
        *("--ctx-size", "16384", "-np", "4", "--alias", "big {{x}}"),
    )
    assert big.settings.environment == {"CUDA_VISIBLE_DEVICES": "0,1", "NAME": "big{{}}"}
    assert (big.settings.slots, big.settings.context) == (4, 4096)
    assert (big.settings.idle_ttl, big.settings.stop_grace, big.settings.start_timeout) == (60, 7, 500)
    assert (big.settings.served_name, big.settings.port, big.settings.health_path) == ("openai/big", None, "/health")
    assert (big.settings.on_demand, big.settings.autostart, big.settings.group) == (True, None, "big alone")
    assert small.model_file_path == str(tmp_path / "rel.gguf")
    assert (small.settings.port, small.settings.health_path, small.settings.autostart) == (9999, "/v1/health", True)
    assert (small.settings.slots, small.settings.idle_ttl, small.settings.stop_grace) == (256, 30, 10)
    assert (container.model_file_path, container.settings.idle_ttl) == ("", 0)
    assert (container.settings.health_path, container.settings.port) == ("/v1/models", None)
    told = {each.about.strip(): each.text for each in found.skipped}
    for name, says in {
        "elsewhere": "its proxy is no http address of this machine",
        "portless": "nobody knows where it listens",
        "unknown": "the macro nope is not there",
        "unset": "the environment variable NOT_SET is not set",
        "quoted": "its cmd is no command",
        "none": "its cmd is no text",
        "timed": "ttl is no number",
        "text": "it is no object",
        "spaced": "its name is no identifier",
        "5": "it is no object with a name",
        "peers.other": "another server is an agent with the engine openai",
    }.items():
        assert says in told.pop(name), name
    assert not told
    noted = [(each.about, each.text.split(":")[0]) for each in found.notes]
    assert noted == [
        ("groups", "one model is loaded at a time, as before"),
        ("big", "clients ask for it by its identifier alone, not by its aliases"),
        ("big", "its filters of parameters are not carried over"),
        ("small", "its cmdStop is not carried over"),
        ("small", "it is listed"),
        ("container", "it is ready once it answers GET /v1/models"),
    ]


def test_what_is_small_as_yaml_and_huge_as_text_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    levels = "\n".join(f"  - &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 12))
    path.write_text(f'levels:\n  - &l0 "x"\n{levels}\nmodels:\n  m: {{cmd: "a ${{PORT}}", env: [*l11]}}\n')
    found = import_models("llama-swap", path)
    assert [(each.about, each.text) for each in found.skipped] == [("m", "its env has what is no text")]


GROUPS: dict[str, Any] = {
    "one": {"members": ["a", "b"]},
    "together": {"swap": False, "members": ["c", "d", "unknown", [1]]},
    "beside": {"swap": False, "exclusive": False, "persistent": True, "members": ["e"]},
    "odd": {"exclusive": False, "members": ["f"]},
    "broken": 5,
}


@pytest.mark.parametrize("form", ["old", "new"])
def test_groups_say_what_may_be_loaded_together(tmp_path: Path, form: str) -> None:
    models = {name: {"cmd": "server ${PORT}"} for name in "abcdefg"}
    groups = {"groups": GROUPS}
    config = groups if form == "old" else {"routing": {"router": {"use": "group", "settings": groups}}}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"models": models, **config}))
    found = import_models("llama-swap", path)
    assert {each.name: each.settings.group for each in found.entries} == {
        **{name: f"{name} alone" for name in "abfg"},
        "c": "together",
        "d": "together",
        "e": "",
    }
    assert [each.name for each in found.entries if each.settings.pinned] == ["e"]
    assert [each.about for each in found.notes] == ["groups.odd"]
    path.write_text(json.dumps({"models": models, "routing": {"router": {"use": "matrix"}}}))
    found = import_models("llama-swap", path)
    assert {each.settings.group for each in found.entries} == {""}
    assert "its matrix is not carried over" in found.notes[0].text


@pytest.mark.parametrize(
    ("content", "says"),
    [("[", "is no YAML"), ("a: 1", "it has no `models`"), ("models: [a]", "it has no `models`"), ("\0", "is no YAML")],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=says):
        import_models("llama-swap", path)
    path.write_text("#" * 2_000_000)
    with pytest.raises(InvalidRequest, match="is longer than 1 MiB"):
        import_models("llama-swap", path)


@pytest.mark.parametrize(
    ("text", "macros", "result"),
    [
        ("${a}", {"a": "x${b}", "b": 1.5}, "x1.5"),
        ("${PORT} ${a}", {"a": True}, "${PORT} true"),
        ("${a}", {"a": "${a}"}, ValueError),
        ("${a}", {"a": "${b}${b}", "b": "${a}"}, ValueError),
        ("${a}", {"a": "${b}" * 1000, "b": "${c}" * 1000, "c": "x" * 1000}, ValueError),
    ],
)
def test_macros_are_filled_in_and_never_grow_without_end(text: str, macros: dict[str, object], result: object) -> None:
    if isinstance(result, str):
        assert filled_in(text, macros, {}) == result
    else:
        with pytest.raises(ValueError, match=r"it is longer than|have each other"):
            filled_in(text, macros, {})
