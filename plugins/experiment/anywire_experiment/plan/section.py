"""What the sections of a plan have in common: an unknown key is an error, and nothing changes what was read."""

from __future__ import annotations

from typing import Annotated

import pydantic

Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


class Section(pydantic.BaseModel):
    """A mapping in a plan."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
