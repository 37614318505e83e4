"""The levels of a factor ``system``: Anywire in some form, or any other program that clients can ask.

    companions:
      engine:
        command: ["{python}", -m, anywire_experiment.mock_engine, --host, "{host}", --port, "{port}", --itl, "10"]
        ready: "listens"
        shared: true
    system:
      engine: {name: openai, base_url: "http://{engine.host}:{engine.port}/v1"}
    factors:
      system:
        - dds: {config: {transports: dds}}
        - before: {config: {transports: dds}, revision: v0.1.0}
        - direct: {base_url: "http://{engine.host}:{engine.port}"}
        - nginx:
            command: [nginx, -c, "{folder}/nginx.conf"]
            files: {nginx.conf: "…"}
            base_url: "http://{host}:{port}"
            ready: {url: /health}
            optional: true

A system is Anywire when it has ``config`` or ``revision``, and another program when it has ``base_url``: the URL of its
OpenAI API. Without ``command`` nothing is started, and what is at that URL, such as a companion, is asked directly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import pydantic

from anywire.errors import ConfigError
from anywire.plugins import describe_validation
from anywire_experiment.plan.companions import Companion, check_named, is_reserved, reserved
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.programs import Program, ReadyAt, is_absolute, own_names
from anywire_experiment.plan.section import Section

SYSTEM = "system"
"""The factor whose levels are systems, and the process of one that is not Anywire's."""
KNOWN_TO_ANYWIRE = ("wait", "urgent_wait", "fairness", "notice", "spent_tokens")
"""Metrics that Anywire's orchestrator tells, and nobody else."""

HeaderName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9-]+$", max_length=64)]
HeaderValue = Annotated[str, pydantic.Field(pattern=r"^[ -~]*$", max_length=4096)]
CompanionName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]


class _System(Section):
    companions: dict[CompanionName, Companion] = pydantic.Field(
        default_factory=dict,
        description="processes that this system alone needs, such as a database; started before it, after those of the "
        "plan",
    )
    optional: bool = pydantic.Field(
        False, description="leave this level out, with a word, where its program is not there or cannot be built"
    )

    @pydantic.field_validator("companions")
    @classmethod
    def _are_its_own(cls, companions: dict[str, Companion]) -> dict[str, Companion]:
        for name, each in companions.items():
            if is_reserved(name):
                raise ValueError(reserved(name))
            if each.arms:
                raise ValueError(f"{name}: it is of this system alone; leave `arms` out")
        return companions


class AnywireSystem(_System):
    """Anywire: of this installation, or of a revision that is built in an environment of its own."""

    config: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="keys of the anywire config, over those of the plan's `system`"
    )
    agents: int | None = pydantic.Field(None, ge=1, le=200, description="agent processes; empty: as many as the plan's")
    revision: str = pydantic.Field(
        "", description="commit, tag or branch of `repository` that is run; empty: what is installed here"
    )
    repository: str = pydantic.Field(
        "",
        description="folder of a git checkout; `~` and `$NAME` are filled in; empty: the checkout this Anywire is run "
        "from",
    )

    @pydantic.model_validator(mode="after")
    def _has_a_revision(self) -> AnywireSystem:
        if self.repository and not self.revision:
            raise ValueError("repository: say which `revision` of it")
        return self


class ForeignSystem(_System):
    """A program that is not Anywire's, or what is already there: clients ask its OpenAI API."""

    base_url: str = pydantic.Field(description="of its OpenAI API: http://{host}:{port}; without a path, /v1 is meant")
    command: tuple[str, ...] = pydantic.Field(
        (), description="program and arguments; it stays in the foreground; empty: nothing is started"
    )
    headers: dict[HeaderName, HeaderValue] = pydantic.Field(
        default_factory=dict, description="headers of every request, such as authorization"
    )
    ready: str | ReadyAt = pydantic.Field("", description="as of a companion; in any case a request must be answered")
    files: dict[str, str] = pydantic.Field(default_factory=dict, description="as of a companion")
    environment: dict[str, str] = pydantic.Field(default_factory=dict, description="as of a companion")
    search: tuple[str, ...] = pydantic.Field((), description="as of a companion")
    version: tuple[str, ...] = pydantic.Field((), description="as of a companion")

    @pydantic.field_validator("base_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if not _is_reachable(url):
            raise ValueError(f"expected http://HOST:PORT, found {url!r}")
        return url

    @pydantic.model_validator(mode="after")
    def _can_be_started(self) -> ForeignSystem:
        inside = own_names([self.base_url, *self.headers.values()])
        if wrong := inside - {"host"} - {each for each in inside if each.startswith("port")}:
            raise ValueError(f"base_url, headers: {{{min(wrong)}}} is of commands and files alone")
        if self.command:
            self._program()
        elif inside:
            raise ValueError(
                f"base_url: without a `command` nothing is started, so there is no {{{min(inside)}}}; name a "
                "companion, such as {engine.port}"
            )
        for name in ("ready", "files", "environment", "search", "version"):
            if getattr(self, name) and not self.command:
                raise ValueError(f"{name}: nothing is started without a `command`")
        return self

    def ports(self) -> set[str]:
        """The names of its ports in `base_url` and `headers`."""
        return own_names([self.base_url, *self.headers.values()]) - {"host"}

    @property
    def program(self) -> Program | None:
        """What is started; None when nothing is."""
        return self._program() if self.command else None

    def _program(self) -> Program:
        ready = self.ready
        if isinstance(ready, ReadyAt) and not is_absolute(ready.url):
            scheme, _, rest = self.base_url.partition("://")
            ready = ReadyAt(url=f"{scheme}://{rest.partition('/')[0]}/{ready.url.lstrip('/')}")
        return Program(
            command=self.command,
            ready=ready,
            files=self.files,
            environment=self.environment,
            search=self.search,
            version=self.version,
        )


def _is_reachable(url: str) -> bool:
    """Whether it has a host and a port that can be, once what stands in braces is filled in."""
    if not url.startswith("http://") or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        where = urlsplit(re.sub(r"\{[^{}]*\}", "1", url))
        return bool(where.hostname) and where.port != 0
    except ValueError:
        return False


def system_of(name: str, value: Any) -> AnywireSystem | ForeignSystem:
    """A level of the factor ``system``. Raises `ConfigError`."""
    where = f"factors.{SYSTEM}.{name}"
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: a system is a mapping with `config` or `revision` (Anywire), or with `base_url` (another "
            f"program), found {value!r}"
        )
    ours, theirs = {"config", "revision"} & {*value}, {"base_url", "command"} & {*value}
    if bool(ours) == bool(theirs):
        found = f"both {sorted(ours)[0]!r} and {sorted(theirs)[0]!r}" if ours else "neither"
        raise ConfigError(
            f"{where}: a system has either `config` or `revision` (Anywire), or `base_url` (another program); this has "
            f"{found}"
        )
    model = AnywireSystem if ours else ForeignSystem
    try:
        return model.model_validate(dict(value))
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation(error, model, where)) from None


def check_foreign(plan: Plan, system: ForeignSystem, companions: Mapping[str, Companion], where: str) -> None:
    """Raises `ConfigError` for what a plan asks of a system that is not Anywire's and that only Anywire has."""
    program = system.program
    own = {"base_url": system.base_url, "headers": dict(system.headers)}
    check_named([own, *(program.texts() if program else ())], companions, where)
    for name, workload in plan.workloads.items():
        if workload.through != "gateway":
            raise ConfigError(f"{where}: workload {name!r} goes through the {workload.through}, which only Anywire has")
        if workload.fault is not None:
            raise ConfigError(f"{where}: workload {name!r} has a fault of Anywire's agents, and this system has none")
    if told := [each for each in KNOWN_TO_ANYWIRE if each in plan.metrics]:
        raise ConfigError(f"{where}: the metric {told[0]} is told by Anywire alone; leave it out of `metrics`")
    if plan.network is not None:
        raise ConfigError(
            f"{where}: `network` lies between Anywire's orchestrator and its agents, and this system has none of them"
        )


def programs_of(companions: Mapping[str, Companion], system: Program | None) -> Iterator[tuple[str, Program]]:
    """What an arm starts that is not Anywire's, by name."""
    yield from companions.items()
    if system is not None:
        yield SYSTEM, system
