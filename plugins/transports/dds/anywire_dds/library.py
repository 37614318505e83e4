"""Cyclone's own library, for what its Python binding does not offer."""

from __future__ import annotations

import ctypes

from cyclonedds.internal import DDS

from anywire.this_system import needs_posix

needs_posix("the transport dds")

ddsc = ctypes.CDLL(DDS._dll_handle._name)
"""The library that is loaded already, with function objects of our own: their argument types are then ours to declare,
and the binding's stay as it needs them."""
