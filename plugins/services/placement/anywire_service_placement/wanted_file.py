"""The file that keeps what was asked for at run time, over a restart of the orchestrator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

import pydantic

from anywire.errors import ConfigError
from anywire.files.private_files import change_private, read_private
from anywire_service_placement.config import Models, WantedModel

log = logging.getLogger(__name__)

FILE = "wanted.json"


class _Kept(pydantic.BaseModel):
    """``configured`` is what the configuration said when ``models`` was asked for."""

    model_config = pydantic.ConfigDict(extra="forbid")

    models: Models
    configured: Models


class WantedFile:
    """What is asked for at run time counts until the configuration is changed."""

    def __init__(self, folder: Path, configured: Mapping[str, WantedModel]) -> None:
        self._path, self._configured = folder / FILE, dict(configured)

    def read(self) -> dict[str, WantedModel]:
        """What is wanted at the start. A file that cannot be read is said in the log, and the configuration counts."""
        try:
            kept = _Kept.model_validate_json(read_private(self._path))
        except FileNotFoundError:
            return dict(self._configured)
        except (ConfigError, pydantic.ValidationError) as error:
            what = str(error).splitlines()[0]
            log.warning("placement: %s cannot be read, the configuration counts: %s", self._path, what)
            return dict(self._configured)
        if kept.configured != self._configured:
            log.info("placement: the configuration was changed: it counts, and %s no more", self._path)
            return dict(self._configured)
        if kept.models != self._configured:
            log.info("placement: what PUT /v1/placement asked for last counts, not the configuration: %s", self._path)
        return kept.models

    async def write(self, models: Mapping[str, WantedModel]) -> None:
        """Keep ``models``. Raises `ConfigError` when that cannot be written; what was kept before is there then."""
        data = _Kept(models=dict(models), configured=self._configured).model_dump_json().encode()
        await asyncio.to_thread(change_private, self._path, lambda _: data)
