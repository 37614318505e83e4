"""Graphics cards and memory of this machine, and on which of them a model is started."""

from anywire_engine_models.devices.machine import MachineDevices, devices_of

__all__ = ["MachineDevices", "devices_of"]
