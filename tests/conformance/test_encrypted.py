"""Links that are encrypted with keys that each end makes for itself hold the same contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.long_form import SOAK

from anywire.testing.transport_kit import TransportConformance

pytestmark = pytest.mark.skipif(
    not SOAK, reason="the long form: in the short one `anywire.testing.kit.identities` opens such links"
)


class _Encrypted(TransportConformance):
    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return options_of(self.transport) | {"encrypted": True}


class TestEncryptedZeromq(_Encrypted):
    transport = "zeromq"


class TestEncryptedGrpc(_Encrypted):
    transport = "grpc"


class TestEncryptedHttp(_Encrypted):
    transport = "http"
