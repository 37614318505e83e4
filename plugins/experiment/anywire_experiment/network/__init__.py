"""Two hosts on this machine, and a link between them that is as slow and lossy as a plan says.

`hosts.link` makes them: two network namespaces, the orchestrator's (with the load generator) and the agents'. Where
the kernel has netem, that shapes a pair of virtual Ethernet devices; else `userspace`, a process of ours, carries the
frames between two TAP devices. What the link really does is measured by `validation`, through the same namespaces.
"""

from anywire_experiment.network.hosts import Host, Hosts, link, unavailable
from anywire_experiment.network.validation import LinkMeasured, validated

__all__ = ["Host", "Hosts", "LinkMeasured", "link", "unavailable", "validated"]
