"""DDS transport of Anywire, on Eclipse Cyclone DDS. The wire contract is ``idl/OrchestratorDDS.idl``."""

from anywire_dds.config import DdsConfig
from anywire_dds.transport import DdsTransport

__all__ = ["DdsConfig", "DdsTransport"]
