"""The settings of the service ``alerts``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import pydantic

from anywire.service import ServiceConfig
from anywire.sizes import read_size

MAX_GAUGES = 100

Value = Annotated[
    float,
    pydantic.BeforeValidator(read_size),
    pydantic.Field(allow_inf_nan=False),
    pydantic.WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]
"""A number, or a text such as ``1 GB``."""


class Threshold(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    above: Value | None = pydantic.Field(
        default=None,
        description="Value above which the gauge is critical: a number, or a size such as `1 GB`.",
    )
    below: Value | None = pydantic.Field(
        default=None, description="Value below which the gauge is critical. Give this one or `above`."
    )
    clear: Value | None = pydantic.Field(
        default=None,
        description="Value that the gauge must reach again to be well: at most `above`, at least `below`. Default: "
        "that value itself.",
    )
    seconds: float = pydantic.Field(
        default=10.0,
        ge=0,
        le=86_400,
        description="Seconds for which the gauge must be critical until the alert is raised, and well until it is "
        "cleared.",
    )

    @pydantic.model_validator(mode="after")
    def _one_limit(self) -> Threshold:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        clear = self.limit if self.clear is None else self.clear
        if not (self.above is None or clear <= self.above) or not (self.below is None or clear >= self.below):
            raise ValueError("clear must be at most above, or at least below: else no alert would last")
        return self

    @property
    def limit(self) -> float:
        found = self.above if self.above is not None else self.below
        assert found is not None
        return found

    def is_critical(self, value: float) -> bool:
        return value > self.limit if self.above is not None else value < self.limit

    def is_well(self, value: float) -> bool:
        """Whether it is so far from critical that the alert may end."""
        clear = self.limit if self.clear is None else self.clear
        return value <= clear if self.above is not None else value >= clear


DEFAULTS: Mapping[str, Threshold] = {
    "vram_free_bytes": Threshold(below=200e6, clear=400e6, seconds=30),
    "vram_used_percent": Threshold(above=98, clear=95, seconds=30),
    "ram_free_bytes": Threshold(below=500e6, clear=1e9, seconds=10),
    "disk_free_bytes": Threshold(below=1e9, clear=2e9, seconds=10),
    "cpu_percent": Threshold(above=95, clear=85, seconds=60),
}
"""What counts for gauges that the configuration does not name."""


class AlertsConfig(ServiceConfig):
    thresholds: dict[str, Threshold | None] = pydantic.Field(
        default_factory=dict,
        max_length=MAX_GAUGES,
        description="When a gauge is critical, by its name. Default: `vram_free_bytes`, `vram_used_percent`, "
        "`ram_free_bytes`, `disk_free_bytes` and `cpu_percent` have one; null ends it.",
    )
    interval: float = pydantic.Field(
        default=1.0, ge=0.1, le=3600, description="Seconds between two looks at what the agents have reported."
    )

    def all_thresholds(self) -> dict[str, Threshold]:
        """Those that count, the defaults included."""
        merged = {**DEFAULTS, **self.thresholds}
        return {gauge: threshold for gauge, threshold in merged.items() if threshold is not None}
