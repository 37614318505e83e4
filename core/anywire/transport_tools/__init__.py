"""What every transport needs and none should write again.

A transport keeps its addresses, its connections and its settings; how much may wait for a peer, which of two lives of
an agent counts, and what a message weighs is decided here, once.
"""

from anywire.transport_tools.payload import check_payload, payload_bytes
from anywire.transport_tools.room import WriteRoom

__all__ = ["WriteRoom", "check_payload", "payload_bytes"]
