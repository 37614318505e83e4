"""The factor ``fault``: what is done to the systems of its arms, in every workload.

factors:
  fault: [none, kill, {late-pause: {kind: pause, at: 2, lasts: 1}}]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from anywire.errors import ConfigError
from anywire.plugins import describe_validation
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.workload import Fault, Workload

FAULT = "fault"
"""The name of the factor."""
NONE = "none"
"""Its level without a fault."""


def is_none(value: Any) -> bool:
    """Whether a level of the factor is that without a fault."""
    return value is None or value == NONE


def has_faults(plan: Plan) -> bool:
    """Whether anything is done to any of its arms."""
    return FAULT in plan.factors or any(each.fault is not None for each in plan.workloads.values())


def faults_of(workloads: Mapping[str, Workload], value: Any) -> dict[str, Fault]:
    """The faults of an arm by workload, for a level of the factor: a kind of fault, ``none``, or the members of a
    workload's ``fault``. Raises `ConfigError`."""
    where = f"factors.{FAULT}"
    if is_none(value):
        return {}
    try:
        fault = Fault.model_validate({"kind": value} if isinstance(value, str) else value)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation(error, Fault, where)) from None
    for name, each in workloads.items():
        if each.fault is not None:
            raise ConfigError(f"{where}: workload {name!r} has a fault of its own; leave one of them out")
        if each.seconds is not None and fault.at >= each.seconds:
            raise ConfigError(
                f"{where}: the fault at {fault.at:g} s comes after the end of workload {name!r} at {each.seconds:g} s"
            )
    return dict.fromkeys(workloads, fault)
