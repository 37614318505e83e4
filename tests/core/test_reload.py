"""A configuration that is read again: what counts at once, what after a restart, and what is no configuration."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from anywire import errors, events
from anywire.config import Config
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import LIVE, PipelineConfig
from anywire.roles import logs
from anywire.roles.orchestrator_role import Served
from anywire.roles.reload import Reload, Reloaded
from anywire.route import Routes
from anywire.submission import Submission
from anywire.testing.puppet import PuppetTransport

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """A reload sets the level of the log of the whole process."""
    names = ("", *logs.CHATTY)
    before = [logging.getLogger(name).level for name in names]
    yield
    for name, each in zip(names, before, strict=True):
        logging.getLogger(name).setLevel(each)


def config(pipeline: Mapping[str, Any] | None = None, **more: Any) -> Config:
    return Config.model_validate({"transports": "memory", "pipeline": pipeline or {}, **more})


class Source:
    """What is read, as somebody has written it last."""

    def __init__(self, first: Config) -> None:
        self.now: Config | errors.AnywireError = first

    def read(self) -> Config:
        if isinstance(self.now, errors.AnywireError):
            raise self.now
        return self.now


def reloading(pipeline: Orchestrator, source: Source) -> Reload:
    assert isinstance(source.now, Config)
    reload = Reload(source.now, source.read)
    reload.serves(Served(pipeline, [], routes=Routes()))
    return reload


async def test_what_may_change_counts_for_the_next_task(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    wire.join("a", models=("m", "other"), slots=9)
    source = Source(config())
    reload = reloading(pipeline, source)
    long = Submission("chat", "m", '{"max_tokens":50}', True)
    earlier = pipeline.submit(long)
    source.now = config({"max_tokens": 10, "fallbacks": {"gone": ["other"]}})
    assert await reload.again() == Reloaded(("pipeline.fallbacks", "pipeline.max_tokens"))
    with pytest.raises(errors.InvalidRequest, match="the longest answer here has 10 tokens"):
        pipeline.submit(long)
    assert [each.task_id for each in pipeline.tasks()] == [earlier.task_id]
    pipeline.submit(Submission("chat", "gone", "{}", True))
    assert wire.requests[-1][1].model == "other"
    source.now = config()
    assert await reload.again() == Reloaded(("pipeline.fallbacks", "pipeline.max_tokens"))
    pipeline.submit(long)


def test_every_setting_that_may_change_is_taken_and_no_other_one() -> None:
    others: dict[str, Any] = {
        "accept_timeout": 3.0,
        "agent_wait": 9.0,
        "deadline": 7.0,
        "early_refusal": False,
        "fallbacks": {"a": ["b"]},
        "first_token_timeout": 8.0,
        "max_attempts": 9,
        "max_hops": 3,
        "max_tokens": 11,
        "next_token_timeout": 12.0,
        "reader_timeout": 13.0,
        "retries": {"base": 0.3, "floor": 77, "longest": 9.0, "share": 0.9, "window": 4.0},
        "tenant_queue_share": 0.5,
        "window": 999,
        "resume": False,
    }
    told, own = PipelineConfig.model_validate(others), PipelineConfig()
    default = PipelineConfig()
    own.take(told)
    flat = {
        key
        for name, value in others.items()
        for key in ([f"{name}.{k}" for k in value] if name == "retries" else [name])
    }
    assert set(LIVE) == flat - {"window", "resume", "retries.window"}
    assert (own.window, own.resume, own.retries.window) == (default.window, default.resume, default.retries.window)
    own.window, own.resume, own.retries.window = told.window, told.resume, told.retries.window
    assert own == told


async def test_what_counts_after_a_restart_is_named_until_it_does(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    source = Source(config())
    reload = reloading(pipeline, source)
    told: list[events.ConfigReloaded] = []
    pipeline.events.subscribe("test", told.append, events.ConfigReloaded)
    source.now = config({"window": 7}, server={"port": 4711}, log_level="debug")
    restart = ("pipeline.window", "server.port")
    assert await reload.again() == Reloaded(("log_level",), restart)
    assert await reload.again() == Reloaded((), restart)
    source.now = config(server={"port": 4711})
    assert await reload.again() == Reloaded(("log_level",), ("server.port",))
    assert [(each.what, each.error, each.restart) for each in told] == [
        ("config", "", restart),
        ("config", "", restart),
        ("config", "", ("server.port",)),
    ]


async def test_what_is_no_configuration_changes_nothing(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    source = Source(config({"max_tokens": 10}))
    reload = reloading(pipeline, source)
    told: list[events.ConfigReloaded] = []
    pipeline.events.subscribe("test", told.append, events.ConfigReloaded)
    source.now = errors.ConfigError("pipeline.max_tokens: not a number")
    with pytest.raises(errors.ConfigError, match="not a number"):
        await reload.again()
    assert pipeline.config.max_tokens == 10
    assert [(each.error, each.restart) for each in told] == [("pipeline.max_tokens: not a number", ())]
    source.now = config({"max_tokens": 20})
    assert await reload.again() == Reloaded(("pipeline.max_tokens",))
    assert pipeline.config.max_tokens == 20


async def test_of_many_who_ask_at_once_the_last_content_counts(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    source, written = Source(config()), iter(range(1, 100))
    reload = reloading(pipeline, source)

    def read() -> Config:
        return config({"max_tokens": next(written)})

    reload._read = read
    await asyncio.gather(*(reload.again() for _ in range(20)))
    assert pipeline.config.max_tokens == 20


async def test_what_is_never_read_holds_up_neither_others_nor_the_end(
    pipeline_of: Make, wire: PuppetTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    source, goes_on = Source(config()), threading.Event()
    reload = reloading(pipeline, source)

    def never() -> Config:
        goes_on.wait()
        return config({"max_tokens": 3})

    monkeypatch.setattr("anywire.roles.reload.READ_TIMEOUT", 0.05)
    monkeypatch.setattr(reload, "_read", never)
    with pytest.raises(errors.ConfigError, match=r"could not be read within 0\.05 s"):
        await reload.again()
    hung = [each for each in threading.enumerate() if each.name == "reload"]
    assert [each.daemon for each in hung] == [True]
    monkeypatch.undo()
    source.now = config({"max_tokens": 4})
    assert await reload.again() == Reloaded(("pipeline.max_tokens",))
    goes_on.set()
    await asyncio.to_thread(hung[0].join)
    await asyncio.sleep(0)
    assert pipeline.config.max_tokens == 4


async def test_one_that_is_elected_later_has_what_was_read_meanwhile(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    source = Source(config())
    reload = Reload(config(), source.read)
    source.now = config({"max_tokens": 30})
    assert await reload.again() == Reloaded(("pipeline.max_tokens",))
    reload.serves(Served(pipeline, [], routes=Routes()))
    assert pipeline.config.max_tokens == 30


async def test_what_was_given_to_the_pipeline_stays_its_giver_s(pipeline_of: Make, wire: PuppetTransport) -> None:
    given = PipelineConfig(max_tokens=5)
    pipeline: Orchestrator = await pipeline_of(wire, max_tokens=5)
    pipeline.reconfigure(given)
    pipeline.reconfigure(PipelineConfig(max_tokens=6))
    assert given.max_tokens == 5
