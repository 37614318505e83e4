"""What Ray's errors and a cluster's resources mean, in a sentence."""

from __future__ import annotations

import re

from anywire_launcher_ray.messages import Place

MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
UNAVAILABLE = re.compile(
    r"The actor \w+ is unavailable: (?:The actor is temporarily unavailable: )?(.*?)\.? The task may"
)


def of_error(error: BaseException) -> str:
    """What an error of Ray says, without its tracebacks and lists of ids."""
    text = str(error)
    if missing := MISSING.search(text):
        return f"the Python of its node has no module {missing[1]}: install what the agent needs on each node"
    if lost := UNAVAILABLE.match(text):
        return f"its worker or its node is lost ({lost[1]})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if getattr(error, "actor_init_failed", False) and lines:
        return lines[-1]
    kept = [line for line in lines if not re.match(r"(class_name|actor_id|pid|namespace|name): ", line)]
    return " ".join(kept) or type(error).__name__


def needed(place: Place) -> str:
    """What an agent needs of a node."""
    found = {"CPU": place.num_cpus, "GPU": place.num_gpus, "bytes of memory": place.memory, **place.resources}
    return ", ".join(f"{amount:g} {name}" for name, amount in found.items() if amount) or "a node that answers"


def lacking(place: Place, total: dict[str, float], free: dict[str, float]) -> str:
    """Why an agent has no place, where the cluster has ``total`` and ``free`` of its resources."""
    return f"no node has free what it needs ({needed(place)}); the cluster has {_shown(total)}, free {_shown(free)}"


def _shown(resources: dict[str, float]) -> str:
    plain = {name: amount for name, amount in resources.items() if not name.startswith(("node:", "object_store"))}
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(plain.items())) or "nothing"
