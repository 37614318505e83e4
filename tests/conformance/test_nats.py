"""The transport over the real nats-server: what is quick of it. `tests/system/test_nats_conformance` has the whole kit,
and what has nothing to do with the wire `test_packets` and others have too."""

from tests.integration.nats_conformance import NatsConformance
from tests.integration.nats_servers import needs_nats_server
from tests.long_form import in_the_long_form_alone

from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.commands import CommandTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.fields import FieldTests
from anywire.testing.kit.forgeries import ForgeryTests
from anywire.testing.kit.identities import IdentityTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.pressure import PressureTests
from anywire.testing.kit.progress import ProgressTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.streams import StreamTests
from anywire.testing.kit.versions import VersionTests


@needs_nats_server
class TestNats(NatsConformance):
    pass


in_the_long_form_alone(
    TestNats,
    ClientTests,
    CommandTests,
    DeathTests,
    FieldTests,
    ForgeryTests,
    IdentityTests,
    PauseTests,
    PressureTests,
    ProgressTests,
    RogueTests,
    StreamTests,
    VersionTests,
)
