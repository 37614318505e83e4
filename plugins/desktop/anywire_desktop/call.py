"""A call of the app, as the command that answers it sees it, and how a method becomes a command."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from anywire.errors import InvalidRequest

_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Writes an object to the app; waits while the app does not read."""


class Call:
    """One call under way. ``channel`` is where its messages go: what the app gave as ``on_event``, else the id of the
    call."""

    def __init__(self, send: Send, channel: str | int | None) -> None:
        self._send, self.channel = send, channel

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message on the call's channel. Messages arrive in order, and before the call's answer."""
        params = {"channel": self.channel, "message": message}
        await self._send({"jsonrpc": "2.0", "method": "channel", "params": params})


class Events:
    """Events of the app: ``app_event(name, payload)``, to which its pages listen."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def emit(self, name: str, payload: Any) -> None:
        params = {"event": name, "payload": payload}
        await self._send({"jsonrpc": "2.0", "method": "event", "params": params})


class Command:
    """A method as a command: its parameters are the arguments, with their types and defaults. One of the type `Call` is
    given the call and is no argument."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self.name, self._method = method.__name__, method
        types = typing.get_type_hints(method, include_extras=True)
        self._call_name = next((name for name, kind in types.items() if kind is Call), "")
        self._optional: set[str] = set()
        fields: list[Any] = []
        for name, parameter in inspect.signature(method).parameters.items():
            if name != self._call_name:
                if parameter.default is parameter.empty:
                    fields.append((name, types[name]))
                else:
                    fields.append((name, types[name], parameter.default))
                    self._optional.add(name)
        self.arguments = tuple(field[0] for field in fields)
        self._struct = msgspec.defstruct(self.name, fields, kw_only=True)

    async def run(self, given: Mapping[str, Any], call: Call) -> Any:
        """Carry it out with the arguments ``given``, in snake_case or camelCase. Further ones are passed over,
        and null is the default of an argument that has one. Raises
        `InvalidRequest` for arguments that do not fit, and what the method raises."""
        named = {_CAPITAL.sub(lambda found: f"_{found[1].lower()}", name): value for name, value in given.items()}
        named = {name: value for name, value in named.items() if value is not None or name not in self._optional}
        try:
            arguments = msgspec.convert(named, self._struct)
        except (msgspec.ValidationError, RecursionError) as error:
            raise InvalidRequest(f"{self.name}: {error}", param=self._fault_in(named)) from error
        values = {name: getattr(arguments, name) for name in self.arguments}
        if self._call_name:
            values[self._call_name] = call
        return await self._method(**values)

    def _fault_in(self, named: Mapping[str, Any]) -> str:
        """The argument that does not fit, where one can be named."""
        for field in msgspec.structs.fields(self._struct):
            if field.encode_name not in named:
                if field.required:
                    return field.name
                continue
            try:
                msgspec.convert(named[field.encode_name], field.type)
            except (msgspec.ValidationError, RecursionError):
                return field.name
        return ""


def commands_of(*methods: Callable[..., Awaitable[Any]]) -> Iterable[Command]:
    return [Command(method) for method in methods]


def complete(struct: Any) -> dict[str, Any]:
    """All members of a struct for the app, those too that have their default: a page need not know these."""
    return {each.encode_name: getattr(struct, each.name) for each in msgspec.structs.fields(type(struct))}
