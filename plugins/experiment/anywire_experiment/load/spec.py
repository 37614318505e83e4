"""What the load generator is told, and how the runner speaks with it.

``python -m anywire_experiment.load SPEC.json`` obeys JSON lines on its standard input, with one answer or more to each
on its standard output. It reads the `LoadSpec` when the first comes: it can so be started beside the system, before
addresses are known.

    (start)                              {"event": "ready", "pid": 17}
    {"do": "warm_up", "workload": "b2"}  {"event": "warmed_up", "workload": "b2", "requests": 150, "steady": true}
    {"do": "measure", "workload": "b2"}  {"event": "began", "workload": "b2", "at_ns": …}   at once, then
                                         {"event": "ended", "workload": "b2", "at_ns": …, "requests": 500, "failed": 0}
    {"do": "finish"}                     {"event": "written", "rows": 650}                  and it exits with 0

``steady`` is null where the warm-up was too short to tell. Between these it says {"event": "going"} every
`SIGN_OF_LIFE` seconds, by which a long measurement is told from a generator that hangs.

At the end of its input it exits and writes nothing. What keeps it from working at all is an
{"event": "error", "message": …} and exit status 1; a request that fails is a row of the data and no error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic

from anywire_experiment.plan.workload import Workload

SIGN_OF_LIFE = 5.0


class ClientPlane(pydantic.BaseModel):
    """How workloads ``through: client_plane`` reach the orchestrator."""

    model_config = pydantic.ConfigDict(extra="forbid")

    transport: str
    options: dict[str, Any] = {}
    lease: float = 1.0


class LoadSpec(pydantic.BaseModel):
    """One cell's load."""

    model_config = pydantic.ConfigDict(extra="forbid")

    workloads: dict[str, Workload]
    out: Path = pydantic.Field(
        description="the Parquet file to write, in the form of `anywire_experiment.record.samples.LOADED`"
    )
    seed: int = pydantic.Field(
        description="equal seeds give equal arrivals and prompts: the same for all arms of a block"
    )
    url: str = pydantic.Field("", description="of the gateway, http://host:port; empty when no workload uses it")
    client_plane: ClientPlane | None = None
    transports: list[str] = pydantic.Field(
        default_factory=list, description="those that may answer; an answer over another one counts as failed"
    )
    request: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="members of every chat request, over those of the workload"
    )
    headers: dict[str, str] = pydantic.Field(
        default_factory=dict, description="headers of every request through the gateway"
    )
    folder: Path = pydantic.Field(Path(), description="where relative paths of traces and exercises start")
