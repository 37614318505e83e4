"""Checks that need no code: a command that reads the proposal, texts that it must not have, or a class of yours."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import shutil
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Sequence
from typing import Annotated

import pydantic

from anywire.errors import ConfigError
from anywire.secrecy import is_secret
from anywire_service_deliberation.checks import GRACE, MAX_FINDINGS, MAX_MESSAGE_CHARS, ProposalCheck
from anywire_service_deliberation.question import Member, Question
from anywire_service_deliberation.record import Check

MAX_OUTPUT_BYTES = 64 * 1024
"""Bytes of a command's output that are kept, the first ones."""
MAX_COMMANDS = 2
"""Commands of one check that run at once; others wait."""
EXCERPT_CHARS = 80
_FENCE = re.compile(
    r"^[ ]{0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<code>.*?)(?:^[ ]{0,3}(?P=fence)|\Z)",
    re.M | re.S,
)

KIND = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class CheckSettings(pydantic.BaseModel):
    """One check of a service. Exactly one of ``command``, ``forbid`` and ``python`` is set."""

    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Annotated[str, pydantic.Field(pattern=f"^{KIND}$")] = pydantic.Field(
        description="Name of the check: `policy`, `lint`, `dry_run`, or one of your own."
    )
    command: list[str] | None = pydantic.Field(
        default=None,
        min_length=1,
        description="Program and arguments. It gets the proposal on standard input; exit status 0 means passed.",
    )
    language: str = pydantic.Field(
        default="",
        description="Give the command only the fenced code blocks of this language, joined. Empty: the whole text.",
    )
    forbid: list[str] | None = pydantic.Field(
        default=None, min_length=1, description="Regular expressions that a proposal must not match anywhere."
    )
    python: str | None = pydantic.Field(
        default=None, description="A check of your own, `package.module:Class`: see the how-to about roles and rubrics."
    )

    @pydantic.model_validator(mode="after")
    def _is_one_thing(self) -> CheckSettings:
        if sum(each is not None for each in (self.command, self.forbid, self.python)) != 1:
            raise ValueError("set one of command, forbid and python")
        if self.language and self.command is None:
            raise ValueError("language is for a command")
        return self


def checks_of(settings: Sequence[CheckSettings], where: str = "checks") -> tuple[ProposalCheck, ...]:
    """The checks that a configuration asks for. Raises `ConfigError` that names the one at fault; ``where`` is the
    place of ``settings`` in the configuration."""
    checks: list[ProposalCheck] = []
    for index, each in enumerate(settings):
        place = f"{where}.{index}"
        if any(each.kind == other.kind for other in checks):
            raise ConfigError(f"{place}.kind: two checks are named {each.kind!r}")
        if each.command is not None:
            if shutil.which(each.command[0]) is None:
                raise ConfigError(f"{place}.command: there is no program {each.command[0]!r}")
            checks.append(CommandCheck(each.kind, each.command, each.language))
        elif each.forbid is not None:
            checks.append(ForbiddenTexts(each.kind, _compiled(each.forbid, place)))
        elif each.python is not None:
            checks.append(_own(each.kind, each.python, place))
    return tuple(checks)


class ForbiddenTexts:
    """Passes a proposal that none of ``patterns`` matches."""

    def __init__(self, kind: str, patterns: Sequence[re.Pattern[str]]) -> None:
        self.kind = kind
        self._patterns = patterns

    async def check(self, question: Question, member: Member, text: str) -> Check:
        found = [(pattern.pattern, match) for pattern in self._patterns if (match := pattern.search(text)) is not None]
        findings = tuple(f"{pattern}: {match[0][:EXCERPT_CHARS]!r}" for pattern, match in found)
        return Check(self.kind, not findings, f"{len(findings)} forbidden" if findings else "", findings)


class CommandCheck:
    """Passes a proposal that a command accepts: it reads the text on standard input, and exits with 0.

    ``findings`` are the lines of its output, standard error too. The command sees no variable of the environment that
    is a secret by its name, or a setting of Anywire. It is killed with its group when its check is cancelled.
    """

    def __init__(self, kind: str, command: Sequence[str], language: str = "") -> None:
        self.kind = kind
        self._command, self._language = tuple(command), language
        self._turn = asyncio.Semaphore(MAX_COMMANDS)

    async def check(self, question: Question, member: Member, text: str) -> Check:
        given = code_in(text, self._language) if self._language else text
        if not given.strip():
            return Check(self.kind, passed=False, message=f"There is no code in {self._language}.")
        async with self._turn:
            process = await _begun(self._command)
            try:
                output, status = await _talk(process, given.encode(errors="replace"))
            except BaseException:
                await _end(process)
                raise
        said = output.decode(errors="replace").strip()
        lines = tuple(line for line in said.splitlines() if line.strip())
        passed = status == 0
        message = said[:MAX_MESSAGE_CHARS] if passed else f"{self._command[0]} exited with status {status}"
        return Check(self.kind, passed, message, () if passed else lines[:MAX_FINDINGS], exit_code=status)


def code_in(text: str, language: str) -> str:
    """The fenced blocks of ``language`` in a text of Markdown, joined."""
    wanted = language.casefold()
    return "\n".join(found["code"] for found in _FENCE.finditer(text) if found["language"].casefold() == wanted)


async def _begun(command: Sequence[str]) -> Process:
    """Start a process with a group of its own. One that begins while this is cancelled is ended too."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=_environment(), start_new_session=True
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await _end(await starting)
        raise


async def _talk(process: Process, given: bytes) -> tuple[bytes, int]:
    """Give a process its input, read its output to the end, and wait for it."""

    async def give() -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(given)
            await process.stdin.drain()
        process.stdin.close()

    async def take() -> bytes:
        assert process.stdout is not None
        kept = b""
        while part := await process.stdout.read(MAX_OUTPUT_BYTES):
            kept += part[: MAX_OUTPUT_BYTES - len(kept)]
        return kept

    _, output, status = await asyncio.gather(give(), take(), process.wait())
    return output, status


async def _end(process: Process) -> None:
    """Kill a process with all that it has started, and read what is left, so that its pipe is closed."""

    async def gone() -> None:
        assert process.stdout is not None
        while await process.stdout.read(MAX_OUTPUT_BYTES):
            pass
        await process.wait()

    # Its group is there while any of it lives.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(gone(), GRACE)


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_") and not is_secret(key)}


def _compiled(patterns: Sequence[str], place: str) -> list[re.Pattern[str]]:
    compiled = []
    for index, pattern in enumerate(patterns):
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ConfigError(f"{place}.forbid.{index}: this is no regular expression: {error}") from None
    return compiled


def _own(kind: str, name: str, place: str) -> ProposalCheck:
    module, _, attribute = name.partition(":")
    try:
        check: ProposalCheck = getattr(importlib.import_module(module), attribute)()
        check.kind = kind
        if not callable(check.check):
            raise TypeError("its check is not a method")
    except Exception as error:
        raise ConfigError(
            f"{place}.python: {name!r} cannot be made: {type(error).__name__}: {error}; expected package.module:Class, "
            "made without arguments, with a method check"
        ) from error
    return check
