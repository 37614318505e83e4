"""The service ``audit``: subscribes to what people and machines do, and writes it down."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from anywire import errors
from anywire.caller import Caller
from anywire.context import Context
from anywire.events import CommandBegun, Event
from anywire.route import Request, Response, Route
from anywire.service import Service
from anywire_service_audit.chain import Entry, actor
from anywire_service_audit.config import AuditConfig
from anywire_service_audit.folder import read_key
from anywire_service_audit.journal import Journal
from anywire_service_audit.told import ALWAYS, TASKS, RateBound, command_begun, who_caused
from anywire_service_audit.writer import Writer

log = logging.getLogger(__name__)


class Audit(Service):
    """Writes the audit log of one orchestrator; see `anywire_service_audit.told` for what is in it.

    With the setting ``required`` a command is written through to the disk before it is sent, and refused with
    `PluginFailed` when that does not succeed.
    """

    name = "audit"
    Config = AuditConfig
    before_timeout = 5.0

    config: AuditConfig

    def __init__(self, config: AuditConfig) -> None:
        super().__init__(config)
        self._writer: Writer | None = None
        self._bound = RateBound()
        self._unsubscribe: Callable[[], object] = lambda: None

    async def start(self, context: Context) -> None:
        config = self.config
        key = read_key(config.key_file, make=True) if config.key_file is not None else b""
        folder = config.folder.expanduser() if config.folder is not None else context.state_folder
        journal = Journal(
            folder.absolute(), key=key, max_bytes=config.max_bytes, max_age=config.max_hours * 3600, keep=config.keep
        )
        self._writer = Writer(journal)
        try:
            await self._writer.open()
        except OSError as error:
            if config.required:
                raise errors.ConfigError(f"the audit log in {folder} cannot be written: {error}") from error
        self._told = (ALWAYS | TASKS) if config.tasks else dict(ALWAYS)
        if config.required:
            del self._told[CommandBegun]  # `before_command` writes it
        self._hub_id = context.info.hub_id
        detail = {"version": version("anywire"), "pid": os.getpid()}
        self._writer.add(Entry(time.time(), "orchestrator.started", target=self._hub_id, detail=detail))
        self._unsubscribe = context.events.subscribe(f"service {self.name}", self._tell, *self._told)
        for agent in context.agents():  # those that were quicker
            where = {"transport": agent.transport, "incarnation": agent.info.incarnation}
            self._writer.add(Entry(time.time(), "agent.joined", target=agent.agent_id, detail=where))
        context.routes.add(
            Route(
                "GET", "/audit", self._show, role="operate", summary="Tell where the audit log ends, and if it works."
            )
        )

    async def close(self) -> None:
        self._unsubscribe()
        if self._writer is not None:
            for entry in self._bound.left_out(time.time()):
                self._writer.add(entry)
            await self._writer.close()

    async def before_command(self, target: Sequence[str], name: str, caller: Caller) -> None:
        if not self.config.required or self._writer is None:
            return
        if not await self._writer.written(command_begun(time.time(), target, name, actor(caller))):
            raise errors.PluginFailed(
                f"the command {name} is refused: the audit log cannot be written, and it must be (setting `required`)"
            )

    def _tell(self, event: Event) -> None:
        entry = self._told[type(event)](event)
        if entry is not None and self._writer is not None:
            for each in self._bound.pass_on(entry, who_caused(event)):
                self._writer.add(each)

    async def _show(self, request: Request) -> Response:
        if self._writer is None:
            return Response(b"{}")
        seq, head = self._writer.head
        told: dict[str, Any] = {
            "folder": str(self._writer.journal.folder),
            "seq": seq,
            "hash": head,
            "waiting": self._writer.waiting,
            "lost": self._writer.lost,
            "error": self._writer.error,
        }
        return Response(msgspec.json.encode(told))
