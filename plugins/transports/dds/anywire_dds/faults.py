"""Every error of the DDS library as one of `anywire.errors`."""

from __future__ import annotations

from cyclonedds.core import DDSException

from anywire.errors import AnywireError, Congested, TransportError, TransportUnavailable

OK = DDSException.DDS_RETCODE_OK
TIMEOUT = DDSException.DDS_RETCODE_TIMEOUT

_BUG = "this is a fault of the transport or of the DDS library, please report it"
_SHORT = "the DDS library ran out of memory, sockets or threads: raise the limits of this process (ulimit -n, -u)"

FAULTS: dict[int, tuple[type[AnywireError], str]] = {
    DDSException.DDS_RETCODE_ERROR: (TransportError, "the DDS library gives no reason; its log on stderr may"),
    DDSException.DDS_RETCODE_UNSUPPORTED: (TransportUnavailable, "the installed DDS library lacks a needed feature"),
    DDSException.DDS_RETCODE_BAD_PARAMETER: (TransportError, _BUG),
    DDSException.DDS_RETCODE_PRECONDITION_NOT_MET: (
        TransportUnavailable,
        "the DDS library is in use in this process in a way that does not go with this",
    ),
    DDSException.DDS_RETCODE_OUT_OF_RESOURCES: (TransportUnavailable, _SHORT),
    DDSException.DDS_RETCODE_NOT_ENABLED: (TransportError, _BUG),
    DDSException.DDS_RETCODE_IMMUTABLE_POLICY: (TransportError, _BUG),
    DDSException.DDS_RETCODE_INCONSISTENT_POLICY: (TransportError, _BUG),
    DDSException.DDS_RETCODE_ALREADY_DELETED: (TransportError, "the DDS entity is closed already"),
    DDSException.DDS_RETCODE_TIMEOUT: (Congested, "the reader has not acknowledged what it was sent"),
    DDSException.DDS_RETCODE_NO_DATA: (TransportError, _BUG),
    DDSException.DDS_RETCODE_ILLEGAL_OPERATION: (TransportError, _BUG),
    DDSException.DDS_RETCODE_NOT_ALLOWED_BY_SECURITY: (
        TransportUnavailable,
        "DDS security does not allow it: check the permissions document of this participant",
    ),
}


def mapped(fault: DDSException, doing: str, *, opening: bool = False) -> AnywireError:
    """The error to raise ``from fault``; ``doing`` says what failed, as in "writing to DDS". With ``opening`` it is
    always `TransportUnavailable`: something needed for a hub, an agent or a link cannot be made."""
    kind, advice = FAULTS.get(fault.code, (TransportError, "unknown return code"))
    return (TransportUnavailable if opening else kind)(f"{doing} failed: {advice} ({fault})")
