"""The service ``nats`` keeps the contract of services, where no server is there."""

from anywire.testing.service_kit import ServiceConformance


class TestNats(ServiceConformance):
    service = "nats"
    options = {"servers": "nats://127.0.0.1:1", "publish": ["answers", "deliberations", "tasks"]}  # noqa: RUF012
