"""The conformance kits: subclass one in a test file.

Needs ``pip install anywire[testing]``. A transport's whole test file is

    from anywire.testing.transport_kit import TransportConformance

    class TestMine(TransportConformance):
        transport = "mine"
"""
