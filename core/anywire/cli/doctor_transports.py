"""What ``anywire doctor`` finds out about a transport: whether it works on this machine, and whether an orchestrator is
reached over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from anywire.cli.agent_state import agent_state, why
from anywire.cli.finding import Finding
from anywire.errors import AnywireError, NoAgent
from anywire.printable import printable

if TYPE_CHECKING:
    from anywire.config import Config, PluginChoice
    from anywire.plugins import Plugins
    from anywire.roles.client import Client
    from anywire.transport import Transport

LOOK = 2.0
"""Seconds an orchestrator gets to link an agent that looks for one."""
LARGE = 48_000
"""Characters of the message that must come through to an orchestrator and back: many times what a network takes in one
packet."""
ECHO = 5.0
"""Seconds it may take."""
CLOCKS = 2.0
"""Seconds by which two clocks may differ before that is told."""
SET_CLOCKS = "set both clocks, for example by NTP: logs, certificates and experiments go by them"
RESTORE = "repair what is wrong with it, then `anywire restore AGENT`; `anywire agents` shows all"
MOST_TOLD = 5
"""Agents that get no task, as they are told one by one."""


async def works_here(config: Config, plugins: Plugins, choice: PluginChoice) -> Finding:
    """Whether a hub and an agent find each other on this machine, apart from a running fleet."""
    from anywire.cli import probe
    from anywire.config import replaced

    check = f"transport {choice.name}"
    try:
        transport, options = _apart(plugins, choice)
        config = replaced(config, transports={choice.name: options})
    except AnywireError as error:
        return Finding(check, False, str(error), f"correct transports.{choice.name}, or install the plugin")
    try:
        detail = await probe.exchange(config, plugins, transport)
    except TimeoutError:
        detail = f"an agent and a hub on this machine did not find each other in {probe.DISCOVERY:.0f} s"
        remedy = _discovery_remedy(transport)
        if found := _found(transport):
            detail, remedy = f"{detail}: {_all(found, 0)}", _all(found, 1)
        return Finding(check, False, detail, remedy, settings=transport.effective_settings())
    except AnywireError as error:
        # Where orchestrators listen there is often one already, or it is another machine: then no hub opens here.
        if transport.capabilities.discovery == "directory" and (hub_id := await _seen(config, plugins, choice)):
            detail = f"an agent here is linked by the orchestrator {hub_id}; no other one can run here ({error})"
            return Finding(check, True, detail)
        return Finding(check, False, str(error), f"correct transports.{choice.name}; `anywire config` shows it")
    settings = transport.effective_settings()
    if found := _found(transport):
        return Finding(check, True, f"{detail}, but {_all(found, 0)}", _all(found, 1), True, settings)
    return Finding(check, True, detail, settings=settings)


async def reaches_orchestrator(config: Config, plugins: Plugins, choice: PluginChoice, key: str | None) -> Finding:
    """Whether an agent on this machine, with these options, is linked by an orchestrator, and whether what a client
    here with that ``key`` (as for `anywire.Client`) sends to it comes through, however long it is."""
    from anywire.cli import probe

    check = f"orchestrator over {choice.name}"
    try:
        transport = _as_itself(config, plugins, choice)
    except AnywireError as error:
        return Finding(check, False, str(error), "correct identity; `anywire config` shows it")
    where = f"over {choice.name}{probe.meeting_point(transport)}"
    try:
        hub_id = await probe.orchestrator_seen(transport, probe.agent_id("look"), config.lease.timeout, LOOK)
    except AnywireError as error:
        detail = f"whether an orchestrator is there {where} could not be seen: {error}"
        return Finding(check, True, detail, f"correct transports.{choice.name}", warns=True)
    if hub_id:
        seen = f"an orchestrator is seen {where} ({hub_id})"
        return await _comes_through(Finding(check, True, seen), config, plugins, choice, key)
    if found := _found(transport):
        return Finding(check, False, f"no orchestrator links an agent here {where}: {_all(found, 0)}", _all(found, 1))
    return Finding(check, True, f"no orchestrator is seen {where}", probe.meeting_remedy(transport), warns=True)


def leaves_the_process(plugins: Plugins, choice: PluginChoice) -> bool:
    try:
        transport: Transport = plugins.create("transports", choice.name, choice.options)
    except AnywireError:
        return False  # the check of the transport itself says why
    return transport.capabilities.inter_process


async def _comes_through(
    seen: Finding, config: Config, plugins: Plugins, choice: PluginChoice, key: str | None
) -> Finding:
    """``seen``, or what stands between a client here and the orchestrators: lost messages, or other clocks."""
    from anywire.roles.client import Client, ClientConfig

    transport: Transport = plugins.create("transports", choice.name, choice.options)
    client = Client(transport, config=ClientConfig(agent_wait=LOOK), lease=config.lease.timeout, key=key)
    try:
        async with client:
            return await _echoed(seen, client)
    except AnywireError:
        return seen  # it may take no clients over this transport, or know no such command


async def _echoed(seen: Finding, client: Client) -> Finding:
    try:
        async with asyncio.timeout(LOOK):
            await client.hub.agents_until(bool)
    except TimeoutError:
        raise NoAgent("no orchestrator takes clients here") from None
    slowest, told = 0.0, []
    for agent in client.hub.agents():
        began, said = time.time(), await _echo(client, agent.agent_id, "")
        ended = time.time()
        behind = max(began - said, said - ended, 0.0)
        if behind > CLOCKS:
            which = "behind" if said < began else "ahead of"
            told.append((f"the clock of {agent.agent_id} is {behind:.0f} s {which} the one here", SET_CLOCKS))
        try:
            async with asyncio.timeout(ECHO):
                await _echo(client, agent.agent_id, LARGE * "x")
        except TimeoutError:
            detail = f"{seen.detail}, but of what is sent to it only short messages arrive: {LARGE} bytes did not"
            remedy = (
                "something between the two drops the fragments of large packets (a VPN, a firewall, a smaller MTU): "
                "let them pass, or make the transport's packets smaller where it has an option for that"
            )
            return seen._replace(ok=False, detail=detail, remedy=remedy)
        slowest = max(slowest, 1000 * (time.time() - ended))
        told += await _out_of_service(client, agent.agent_id)
    if told:
        return seen._replace(detail=f"{seen.detail}, but {_all(told, 0)}", remedy=_all(told, 1), warns=True)
    return seen._replace(detail=f"{seen.detail}; {LARGE // 1000} kB went there and back in {slowest:.1f} ms")


async def _out_of_service(client: Client, orchestrator: str) -> list[tuple[str, str]]:
    """The agents that get no task, as they are quarantined or somebody has ordered it, and what to do. None where this
    client may not see agents, or the orchestrator tells nothing of their health."""
    try:
        async with aclosing(client.command("agents", {}, orchestrator=orchestrator, deadline=ECHO)) as results:
            listed = [each async for each in results]
    except AnywireError:
        return []
    found = []
    for agent in listed:
        health = agent.get("health") if isinstance(agent, dict) else None
        if not isinstance(health, dict):
            continue
        order, state = health.get("order", ""), health.get("state", "")
        if order or state == "quarantined":
            words = ": ".join(filter(None, (agent_state("ready", order, state), why(health))))
            found.append(printable(f"the agent {agent['id']} is {words}"))
    if len(found) > MOST_TOLD:
        found[MOST_TOLD:] = [f"{len(found) - MOST_TOLD} more agents get no task"]
    return [(each, RESTORE) for each in found]


async def _echo(client: Client, agent_id: str, data: str) -> float:
    """When the orchestrator had it, by its clock, in seconds since the epoch."""
    said: Mapping[str, Any] = {}
    async with aclosing(client.command("echo", {"data": data}, orchestrator=agent_id, deadline=ECHO)) as results:
        async for result in results:
            said = result if isinstance(result, dict) else {}
    at = said.get("time")
    return float(at) if isinstance(at, (int, float)) else time.time()


def _apart(plugins: Plugins, choice: PluginChoice) -> tuple[Transport, dict[str, Any]]:
    """The transport apart from a running fleet where it offers that, so that no orchestrator links the agent of the
    check; and its options. Addresses of a directory may be another machine's, or taken, and secrets those of one end
    alone: its default options, and free addresses, tell as much."""
    from anywire.transport_tools import BoundedOptions

    transport: Transport = plugins.create("transports", choice.name, choice.options)
    options = dict(choice.options)
    if transport.capabilities.discovery == "directory":
        options = {name: value for name, value in options.items() if name in BoundedOptions.model_fields}
    options |= type(transport).free_options(options)
    return plugins.create("transports", choice.name, options), options


async def _seen(config: Config, plugins: Plugins, choice: PluginChoice) -> str:
    """The orchestrator that links an agent here; empty when there is none, or no agent's end opens either."""
    from anywire.cli import probe

    try:
        transport = _as_itself(config, plugins, choice)
        return await probe.orchestrator_seen(transport, probe.agent_id("end"), config.lease.timeout, LOOK)
    except AnywireError:
        return ""


def _as_itself(config: Config, plugins: Plugins, choice: PluginChoice) -> Transport:
    """The transport with the identity that an agent here would have. Raises `ConfigError`."""
    from anywire.roles.identities import OwnIdentity

    transport: Transport = plugins.create("transports", choice.name, choice.options)
    transport.identity = OwnIdentity(config).identity
    return transport


def _found(transport: Transport) -> Sequence[tuple[str, str]]:
    from anywire.transport import HasFindings

    return transport.findings() if isinstance(transport, HasFindings) else ()


def _all(found: Sequence[tuple[str, str]], member: int) -> str:
    """What all findings say, each once: ``member`` 0 what is so, 1 what would do."""
    return "; ".join(dict.fromkeys(each[member] for each in found))


def _discovery_remedy(transport: Transport) -> str:
    match transport.capabilities.discovery:
        case "native":
            options = ", ".join(transport.Config.model_fields) or "none"
            return (
                "multicast is blocked, as in many containers, or the interface is the wrong one: name peers and the "
                f"interface in the transport's options ({options}), and let a firewall pass its UDP ports"
            )
        case "brokered":
            return "see that the broker of this transport runs and is reachable where the options say"
        case _:
            return "see that the hub's address in the transport's options is the one agents can reach"
