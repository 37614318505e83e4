"""``python -m anywire.roles.process ROLE``: the process of a role as a launcher starts it.

It reads its configuration from the first line of standard input, says ``ready: …`` on standard output, logs on standard
error, and stops on SIGTERM or at the end of standard input. Exit status: 0 after a stop, 1 for an error (one line on
standard error), 2 for an unknown role.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from anywire.config import Config
from anywire.errors import AnywireError
from anywire.plugins import Plugins
from anywire.roles import assembly, logs, stop
from anywire.roles.parent import inherited_config, stop_with_parent
from anywire.roles.ready import say_ready
from anywire.secrecy import hide_in_tracebacks

Run = Callable[[Config, Plugins, stop.Stop], Coroutine[Any, Any, None]]


def _agent() -> Run:
    from anywire.roles import agent_role

    async def run(config: Config, plugins: Plugins, stop: stop.Stop) -> None:
        agent = assembly.make_agent(config, plugins)
        await agent_role.work(agent, config, stop, lambda: say_ready(agent_role.description(agent, config)))

    return run


def _orchestrator() -> Run:
    from anywire.roles import orchestrator_role

    async def run(config: Config, plugins: Plugins, stop: stop.Stop) -> None:
        await orchestrator_role.serve(config, plugins, stop, lambda served: say_ready(", ".join(served.addresses)))

    return run


def _gateway() -> Run:
    from anywire.roles import gateway_role

    async def run(config: Config, plugins: Plugins, stop: stop.Stop) -> None:
        await gateway_role.work(
            config, plugins, stop, lambda served: say_ready(", ".join(each.address for each in served))
        )

    return run


_ROLES: dict[str, Callable[[], Run]] = {"agent": _agent, "orchestrator": _orchestrator, "gateway": _gateway}
"""Each imports what its role needs, and nothing of the others."""


def main() -> int:
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role not in _ROLES:
        print(f"usage: python -m anywire.roles.process {'|'.join(_ROLES)}", file=sys.stderr)
        return 2
    hide_in_tracebacks()
    try:
        work = _ROLES[role]()  # it imports while the configuration may be on its way
        config = inherited_config()
        logs.configure(config.log_level, config.log_format)
        plugins = assembly.load_plugins(config)

        async def run(asked: stop.Stop) -> None:
            stop_with_parent(asked)
            await work(config, plugins, asked)

        stop.run(run)
    except AnywireError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
