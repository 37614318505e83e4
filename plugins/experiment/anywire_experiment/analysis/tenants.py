"""How the tenants of a cell were served, by its rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anywire.fairness import Served, jain_index
from anywire_experiment.analysis.sample_rows import Floats, column, in_time, waits_ms


class TenantRows(NamedTuple):
    """What came of the requests of one tenant with one priority: how many there were, how many were answered in time,
    the tokens of answers, and the waits, in seconds."""

    tenant: str
    priority: int
    requests: int
    in_time: int
    tokens: int
    waits_s: Floats


def tenants_of(rows: pa.Table) -> list[TenantRows]:
    """The requests of each tenant and priority, in the order of their names; none of an older record, which tells
    no tenants. A request that was refused before it was a task counts as the empty tenant's."""
    rows = rows.filter(pc.is_valid(rows["tenant"]))
    pairs = sorted(set(zip(rows["tenant"].to_pylist(), rows["priority"].to_pylist(), strict=True)))
    found = []
    for tenant, priority in pairs:
        own = rows.filter(pc.and_(pc.equal(rows["tenant"], tenant), pc.equal(rows["priority"], priority)))
        whole = own.filter(pc.equal(own["outcome"], "ok"))
        tokens = int(np.maximum(column(whole, "tokens"), 0).sum())
        found.append(TenantRows(tenant, priority, own.num_rows, int(in_time(own).sum()), tokens, waits_ms(own) / 1e3))
    return found


def jain(rows: pa.Table) -> float | None:
    """Jain's index of the tokens of the tenants of which tasks waited half of the time or more, while requests
    came: what is sent later empties the queue, and in the end everybody has got what was asked for. None with fewer
    than two such tenants, and for an older record."""
    last = int(column(rows, "intended_ns").max()) if rows.num_rows else 0
    rows = rows.filter(pc.greater(rows["stage_selected_ns"], 0))
    known = pc.and_(pc.is_valid(rows["tenant"]), pc.less_equal(rows["stage_received_ns"], last))
    rows = rows.filter(known).sort_by("stage_selected_ns")
    served = Served(int(column(rows, "stage_received_ns").min()) if rows.num_rows else 0)
    times = (column(rows, "stage_received_ns"), column(rows, "stage_selected_ns"), column(rows, "tokens"))
    for tenant, came, went, tokens in zip(rows["tenant"].to_pylist(), *times, strict=True):
        served.add(tenant, 0, int(came), min(int(went), last), max(0, int(tokens)) if went <= last else 0)
    found = served.backlogged(last)
    return jain_index(found.values()) if len(found) > 1 else None
