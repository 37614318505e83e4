"""The conformance kit for transports: what every one must hold, as tests.

Each test works through the public contract: bare ends (`anywire.transport`) where the wire itself is meant, the whole
pipeline where a user would notice, processes of their own where one is killed or paused. In every test each end also
checks the laws of `anywire.testing.laws`. Nothing here measures speed; waits are for events, with a patience that only
a broken transport uses up (`anywire.testing.patience`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import pytest
import pytest_asyncio

from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.commands import CommandTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.ends import EndTests
from anywire.testing.kit.fields import FieldTests
from anywire.testing.kit.forgeries import ForgeryTests
from anywire.testing.kit.identities import IdentityTests
from anywire.testing.kit.links import LinkTests
from anywire.testing.kit.messages import MessageTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.pressure import PressureTests
from anywire.testing.kit.progress import ProgressTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.streams import StreamTests
from anywire.testing.kit.versions import VersionTests
from anywire.testing.kit.wires import WireTests
from anywire.testing.rig import Rig


class Companions(Protocol):
    """The processes a transport needs beside the ends (a broker), running when the test begins."""

    async def stop(self) -> None:
        """End them at once, as a crash would; returns when nobody can connect to them any more."""
        ...

    async def restart(self) -> None:
        """Run them again at the same address; returns when they can be connected to."""
        ...


@pytest.mark.asyncio
class TransportConformance(
    MessageTests,
    FieldTests,
    CommandTests,
    ProgressTests,
    VersionTests,
    ForgeryTests,
    RogueTests,
    IdentityTests,
    LinkTests,
    PressureTests,
    StreamTests,
    ClientTests,
    DeathTests,
    PauseTests,
    WireTests,
    EndTests,
):
    """Subclass it and name the transport; override ``options`` for the settings tests should run with.

    Two more fixtures are for what only some wires have: ``break_wire`` and ``companions``. Their tests are skipped,
    with the reason, where the fixture gives None.
    """

    transport: str
    plugins: tuple[str, ...] = ()
    """Files or modules to load as plugins first, for a transport that is not installed."""

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """The transport's options: an address or domain that belongs to this test run alone."""
        return {}

    @pytest.fixture
    def break_wire(self) -> Callable[[], Awaitable[None]] | None:
        """Breaks every connection between the ends that are open, and lets new ones be made; both processes live.
        ``options`` lead the ends over a wire that it can break."""
        return None

    @pytest.fixture
    def companions(self) -> Companions | None:
        """What must run beside this transport. ``options`` name its address."""
        return None

    @pytest_asyncio.fixture
    async def rig(self, options: dict[str, Any]) -> AsyncIterator[Rig]:
        async with Rig(self.transport, options, self.plugins) as rig:
            yield rig
