"""What the benchmarks share: every installed transport, selector and scheduler, and the event loop of the product."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anywire.errors import ConfigError, TransportUnavailable
from anywire.identity import hub_info
from anywire.plugins import PluginKind, Plugins
from anywire.scheduler import Scheduler
from anywire.selector import Selector
from anywire.testing.recorder import RecordingHubSink
from reserved import dds_domain
from timing import Rounds
from transport_stack import new_event_loop, options_of

ROUNDS = 10
INSTALLED = Plugins()


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(benchmarks: list[dict[str, Any]]) -> None:
    """Grouped by a parameter, what has no such parameter is a group too; pytest-benchmark would break off there."""
    for each in benchmarks:
        each["params"] = defaultdict(lambda: "none", each["params"] or {})


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def domain() -> Iterator[int]:
    with dds_domain() as domain:
        yield domain


@pytest.fixture(scope="module", params=INSTALLED.names("transports"))
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def options(transport: str, loop: asyncio.AbstractEventLoop) -> Iterator[dict[str, Any]]:
    """The transport's options, with which it has been seen to open."""

    async def open_once(options: dict[str, Any]) -> None:
        made = INSTALLED.create("transports", transport, options)
        hub = await made.open_hub(hub_info(), "agent", RecordingHubSink())
        await hub.close()

    with options_of(transport) as options:
        try:
            loop.run_until_complete(open_once(options))
        except (ConfigError, TransportUnavailable) as error:
            pytest.skip(f"{transport} cannot be used as it is: {error}")
        yield options


@pytest.fixture(params=INSTALLED.names("selectors"))
def selector(request: pytest.FixtureRequest) -> Selector:
    made: Selector = _made("selectors", request.param)
    return made


@pytest.fixture(params=INSTALLED.names("schedulers"))
def scheduler(request: pytest.FixtureRequest) -> Scheduler:
    made: Scheduler = _made("schedulers", request.param, max_queue_size=100_000)
    return made


def _made(kind: PluginKind, name: str, **options: Any) -> Any:
    try:
        return INSTALLED.create(kind, name, options)
    except ConfigError as error:
        pytest.skip(f"{name} cannot be made without options: {error}")


@pytest.fixture
def rounds(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> Rounds:
    """Times ``work`` on the loop, several rounds after a warm-up."""

    def run(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: loop.run_until_complete(work()), rounds=ROUNDS, warmup_rounds=1
        )

    return run
