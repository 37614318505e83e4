"""The server of the app's one model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import aiohttp
import msgspec

from anywire.errors import EngineFailed, InvalidRequest
from anywire_desktop.active_server import ActiveServer, Health
from anywire_desktop.app_files import AppFiles, write_whole
from anywire_desktop.call import Command, commands_of
from anywire_desktop.server_plan import ServerConfig
from anywire_engine_models.local_models import ServerUsage

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Slots = Annotated[int, msgspec.Meta(ge=1, le=256)]
Context = Annotated[int, msgspec.Meta(ge=64, le=2**31 - 1)]
Layers = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]

HUB = "https://huggingface.co"
MAX_TEMPLATE = 4 * 1024 * 1024
FETCH_TIMEOUT = 30.0
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class ServerCommands:
    """``hub`` is where chat templates come from."""

    def __init__(self, active: ActiveServer, files: AppFiles, hub: str = HUB) -> None:
        self._active, self._files, self._hub = active, files, hub.rstrip("/")

    def all(self) -> Iterable[Command]:
        return commands_of(
            self.start_llama_server,
            self.stop_llama_server,
            self.is_server_running,
            self.check_server_health,
            self.check_server_health_detail,
            self.get_llama_config,
            self.get_server_metrics,
            self.ensure_chat_template,
        )

    async def start_llama_server(
        self,
        model_path: str,
        binary_path: str = "",
        port: Port = 0,
        ctx_size: Context = 4096,
        n_gpu_layers: Layers = 0,
        parallel: Slots | None = None,
        chat_template: str | None = None,
        chat_template_file: str | None = None,
    ) -> str:
        """Start the server of a model, in the place of the one that runs; returns a sentence with its pid once it
        answers."""
        config = ServerConfig(
            binary_path=binary_path,
            model_path=model_path,
            port=port,
            ctx_size=ctx_size,
            n_gpu_layers=n_gpu_layers,
            parallel=parallel or 1,
            chat_template=chat_template or "",
            chat_template_file=chat_template_file or "",
        )
        status = await self._active.start(config)
        return f"llama-server runs with pid {status.pid} at {status.address}"

    async def stop_llama_server(self) -> str:
        """Stop the server, also one that is starting."""
        await self._active.stop()
        return "llama-server is stopped"

    async def is_server_running(self) -> bool:
        status = self._active.status()
        return status is not None and status.state == "running"

    async def check_server_health(self) -> bool:
        return (await self._active.health()).healthy

    async def check_server_health_detail(self) -> Health:
        return await self._active.health()

    async def get_llama_config(self) -> ServerConfig | None:
        """With what the server was started; null while it does not run."""
        return self._active.config

    async def get_server_metrics(self) -> ServerUsage | None:
        """What the server uses, in percent; null while it does not run."""
        return self._active.usage()

    async def ensure_chat_template(self, hf_repo: str) -> str:
        """The path of a file with the chat template of a repository at Hugging Face, downloaded at the first call."""
        if not _REPOSITORY.fullmatch(hf_repo):
            raise InvalidRequest("hf_repo must be OWNER/NAME", param="hf_repo")
        path = self._files.templates / f"{hf_repo.replace('/', '--')}.jinja"
        if not await self._files.work(path.is_file):
            template = await self._template(hf_repo)
            await self._files.work(write_whole, path, template)
        return str(path)

    async def _template(self, repository: str) -> bytes:
        """Repositories have it as a file, or as a member of the tokenizer's settings."""
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            found = await self._fetch(session, f"{self._hub}/{repository}/raw/main/chat_template.jinja")
            if found is not None:
                return found
            settings = await self._fetch(session, f"{self._hub}/{repository}/raw/main/tokenizer_config.json")
        try:
            template = msgspec.json.decode(settings or b"{}", type=dict)["chat_template"]
            if isinstance(template, list):  # several, by name
                template = next(each["template"] for each in template if each["name"] == "default")
            return str(template).encode()
        except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError, StopIteration) as error:
            raise EngineFailed(f"{repository} has no chat template that can be read") from error

    async def _fetch(self, session: aiohttp.ClientSession, url: str) -> bytes | None:
        """What is at ``url``; None when there is nothing. Raises `EngineFailed`."""
        try:
            async with session.get(url) as response:
                if response.status == 404:
                    return None
                if response.status != 200:
                    raise EngineFailed(f"{url} answered with status {response.status}")
                data = bytearray()
                async for piece in response.content.iter_any():
                    data += piece
                    if len(data) > MAX_TEMPLATE:
                        raise EngineFailed(f"{url} has more than {MAX_TEMPLATE // 2**20} MiB")
                return bytes(data)
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(f"{url} cannot be loaded: {error or type(error).__name__}") from error
