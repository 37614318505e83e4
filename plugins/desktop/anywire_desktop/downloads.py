"""Models of an Ollama registry (or another one of OCI artifacts), downloaded into a folder as Ollama lays it out.

A download that breaks off leaves what it has beside its place, and goes on from there when it is asked for again. A
file gets its name once its digest is right, a manifest its place once all its files are there: so what is there is
whole. A registry is a stranger: no name leads out of the folder, and nothing is longer than the manifest says.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from anywire.errors import ConfigError, EngineFailed, InvalidRequest, ModelNotFound
from anywire_desktop.app_files import write_whole
from anywire_desktop.part_file import PartFile, size_of
from anywire_engine_models.registry.entry import Layer, Manifest
from anywire_engine_models.registry.model_paths import blob

DEFAULT_REGISTRY = "https://registry.ollama.ai"
MAX_MANIFEST = 4 * 1024 * 1024
MAX_LAYERS = 256
MIB = 1024 * 1024
KEPT_FREE = 256 * MIB
"""Bytes of the disk that a download leaves free."""
TRIES = 5
"""Times in a row that a file is asked for without a byte of it coming."""
FIRST_PAUSE, LAST_PAUSE = 0.5, 8.0
"""Seconds between them, doubling."""
CONNECT_TIMEOUT, SILENCE_TIMEOUT = 15.0, 60.0

_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:\d{1,5})?(/[A-Za-z0-9._/-]*)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FORMS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)


class _BrokeOff(Exception):
    """The connection ended before the file was there: it is worth another try."""


class Reference(msgspec.Struct, frozen=True):
    """One version of a model at the registry ``url``."""

    url: str
    library: str
    name: str
    version: str

    @classmethod
    def read(cls, url: str, library: str, name: str, version: str) -> Self:
        """Raises `InvalidRequest`. ``name`` may have the version behind a colon, and the library before a slash."""
        before, slash, name = name.rpartition("/")
        name, colon, told = name.partition(":")
        found = cls(url.rstrip("/"), before if slash else library, name, told if colon else version or "latest")
        if not _URL.fullmatch(found.url):
            raise InvalidRequest("registry must be an address such as https://registry.ollama.ai", param="registry")
        for param in ("library", "name", "version"):
            if not _NAME.fullmatch(getattr(found, param)):
                raise InvalidRequest(f"{param} has letters, digits, '.', '_' and '-' alone", param=param)
        return found

    @property
    def provider(self) -> str:
        return urlsplit(self.url).netloc

    def manifest_path(self, root: Path) -> Path:
        return root / "manifests" / self.provider / self.library / self.name / self.version


class Progress(msgspec.Struct, frozen=True):
    """So much of a file is there; ``total`` is 0 where nobody knows."""

    digest: str
    filename: str
    downloaded: int
    total: int


Told = Callable[[Progress], Awaitable[None]]


class Downloads:
    """Downloads of models; of each file one at a time."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._busy: set[Path] = set()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def download(self, reference: Reference, root: Path, told: Told) -> Path:
        """Download a model into the folder ``root``; returns the path of its manifest. ``told`` is called for each MiB
        of each file and once at its end.

        Raises `ModelNotFound`, `InvalidRequest` (this download is under way already, or the manifest is none),
        `EngineFailed` (the registry does not answer, or sends something else than it says) and `ConfigError` (the
        folder cannot be written, or its disk is full)."""
        place = reference.manifest_path(root)
        if place in self._busy:
            raise InvalidRequest(f"{reference.name}:{reference.version} is being downloaded already", param="name")
        self._busy.add(place)
        try:
            data = await self._manifest(reference)
            layers = _layers(data, reference)
            await asyncio.to_thread(_check_room, root, layers)
            for layer in layers:
                await self._blob(reference, layer, root, told)
            await asyncio.to_thread(write_whole, place, data)
            return place
        finally:
            self._busy.discard(place)

    async def _manifest(self, reference: Reference) -> bytes:
        url = f"{reference.url}/v2/{reference.library}/{reference.name}/manifests/{reference.version}"
        try:
            async with self._opened().get(url, headers={"Accept": ", ".join(_FORMS)}) as response:
                if response.status == 404:
                    raise ModelNotFound(
                        f"{reference.provider} has no model {reference.library}/{reference.name}:{reference.version}"
                    )
                if response.status != 200:
                    raise EngineFailed(f"{reference.provider} answered with status {response.status}")
                data = await response.content.read(MAX_MANIFEST + 1)
                while len(data) <= MAX_MANIFEST and (more := await response.content.read(MAX_MANIFEST)):
                    data += more
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(f"{reference.provider} cannot be reached: {said(error)}") from error
        if len(data) > MAX_MANIFEST:
            raise EngineFailed(f"the manifest is longer than {MAX_MANIFEST // MIB} MiB")
        return data

    async def _blob(self, reference: Reference, layer: Layer, root: Path, told: Told) -> None:
        target = blob(root, layer.digest)
        if target in self._busy:
            raise InvalidRequest(
                f"{layer.digest} is being downloaded already: try again when it is there", param="name"
            )
        self._busy.add(target)
        try:
            size = await asyncio.to_thread(size_of, target)
            if size < 0 or (layer.size and size != layer.size):
                url = f"{reference.url}/v2/{reference.library}/{reference.name}/blobs/{layer.digest}"
                part = PartFile(target)
                try:
                    await self._fetch(url, layer, part, told)
                except OSError as error:
                    raise ConfigError(f"{part.path} cannot be written: {error.strerror or error}") from error
                finally:
                    part.end()
                size = await asyncio.to_thread(size_of, target)
            await told(Progress(layer.digest, target.name, size, layer.size or size))
        finally:
            self._busy.discard(target)

    async def _fetch(self, url: str, layer: Layer, part: PartFile, told: Told) -> None:
        """Download one file, going on with what an earlier try has left. Raises `OSError` of the disk."""
        tries, pause = 0, FIRST_PAUSE
        while True:
            before = await part.size()
            if layer.size and before > layer.size:
                await part.remove()
                before = 0
            if layer.size and before == layer.size:
                break
            try:
                await self._piece(url, layer, part, before, told)
                break
            except _BrokeOff as error:
                went_on = await part.size() > before
                tries, pause = (0, FIRST_PAUSE) if went_on else (tries + 1, min(2 * pause, LAST_PAUSE))
                if tries >= TRIES:
                    raise EngineFailed(
                        f"the download of {layer.digest} broke off {TRIES} times: {error}; what came is kept"
                    ) from error
                await asyncio.sleep(pause)
        if await part.digest() != layer.digest:
            await part.remove()
            raise EngineFailed(f"what came for {layer.digest} has another digest: it is removed; try again")
        await part.take_place()

    async def _piece(self, url: str, layer: Layer, part: PartFile, begin: int, told: Told) -> None:
        """Add to ``part`` what comes after its ``begin`` bytes. Raises `_BrokeOff`, `EngineFailed` for what is not
        worth another try, and `OSError` of the disk."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
        try:
            response = await self._opened().get(url, headers=headers)
        except (aiohttp.ClientError, OSError) as error:
            raise _BrokeOff(said(error)) from error
        async with response:
            if begin and response.status == 416:
                await part.remove()
                raise _BrokeOff("the registry does not have the rest")
            if response.status >= 500 or response.status in (408, 429):
                raise _BrokeOff(f"the registry answered with status {response.status}")
            if response.status not in (200, 206):
                raise EngineFailed(f"the registry answered with status {response.status} for {layer.digest}")
            if response.status == 200:
                begin = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                raise EngineFailed("the registry sent another part than it was asked for")
            total = layer.size or begin + (response.content_length or 0)
            done, reported = begin, begin // MIB
            await part.open(begin)
            try:
                async with aclosing(_pieces(response)) as pieces:
                    async for data in pieces:
                        done += len(data)
                        if layer.size and done > layer.size:
                            raise EngineFailed(f"the registry sent more for {layer.digest} than the manifest says")
                        await part.write(data)
                        if done // MIB > reported:
                            reported = done // MIB
                            if (free := await part.free()) < KEPT_FREE:
                                raise _full(part.path, free)
                            await told(Progress(layer.digest, part.target.name, done, total))
            finally:
                await part.close()
            if layer.size and done < layer.size:
                raise _BrokeOff(f"it ended after {done} of {layer.size} bytes")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE_TIMEOUT)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True)
        return self._session


def _layers(data: bytes, reference: Reference) -> list[Layer]:
    """The files of a manifest, each once. Raises `EngineFailed`."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
        layers = {each.digest: each for each in (*manifest.layers, *([manifest.config] if manifest.config else []))}
        for each in layers.values():
            blob(Path(), each.digest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise EngineFailed(f"{reference.provider} sent no manifest: {error}") from error
    if manifest.model_layer is None:
        raise EngineFailed(f"{reference.name}:{reference.version} has no model layer: it is no model of Ollama's form")
    if len(layers) > MAX_LAYERS or any(each.size < 0 for each in layers.values()):
        raise EngineFailed(f"{reference.provider} sent a manifest that cannot be right")
    return list(layers.values())


def _check_room(root: Path, layers: list[Layer]) -> None:
    """Raise `ConfigError` when what is missing does not fit on the disk."""
    missing = 0
    try:
        for layer in layers:
            target = blob(root, layer.digest)
            if size_of(target) < 0:
                missing += max(0, layer.size - max(0, size_of(target.with_name(f"{target.name}-partial"))))
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
    except OSError as error:
        raise ConfigError(f"{root} cannot be used: {error.strerror}") from error
    if missing and missing + KEPT_FREE > free:
        raise ConfigError(
            f"the disk of {root} has {free // MIB} MiB free, and {missing // MIB} MiB are to be downloaded with "
            f"{KEPT_FREE // MIB} MiB left free: make room, or choose another modelsDirectory"
        )


def _full(path: Path, free: int) -> ConfigError:
    """The disk is filling up, by others or with a file whose manifest does not tell its size."""
    return ConfigError(
        f"the disk of {path} has {free // MIB} MiB free, and {KEPT_FREE // MIB} MiB are left free: make room; what "
        "came is kept"
    )


async def _pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The body in pieces of up to `MIB`. Raises `_BrokeOff`."""
    try:
        async for data in response.content.iter_chunked(MIB):
            yield data
    except (aiohttp.ClientError, OSError) as error:
        raise _BrokeOff(said(error)) from error


def said(error: BaseException) -> str:
    return str(error) or type(error).__name__
