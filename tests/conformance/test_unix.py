"""The example transport, as installed in the workspace; its other tests are beside it in examples/unix_transport."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestUnix(TransportConformance):
    transport = "unix"

    @pytest.fixture
    def options(self) -> Iterator[dict[str, Any]]:
        # Not pytest's own: that path may be longer than a socket's may be.
        directory = Path(tempfile.mkdtemp(prefix="anywire-"))
        yield {"directory": str(directory)}
        shutil.rmtree(directory)
