"""A DDS domain that nobody uses on this machine, for what is to disturb nobody."""

from __future__ import annotations

import random
import socket

DOMAINS = range(10, 101)
"""Up to 100 their ports keep clear of those that the system gives out."""


def free_domain() -> int:
    """A domain of `DOMAINS`, drawn at random, whose well-known ports are free; any of them when none is."""
    candidates = random.SystemRandom().sample(DOMAINS, len(DOMAINS))
    return next((domain for domain in candidates if _is_free(domain)), candidates[0])


def _is_free(domain: int) -> bool:
    # RTPS 9.6.1.1: a domain has 250 ports from 7400; +0 is discovery by multicast, +10 the first participant's.
    for port in (7400 + 250 * domain, 7410 + 250 * domain):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
