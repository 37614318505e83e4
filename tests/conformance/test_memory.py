from anywire.testing.transport_kit import TransportConformance


class TestMemory(TransportConformance):
    transport = "memory"
