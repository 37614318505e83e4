"""A stock client in a process of its own, which prints what it has found as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from tests.patience import PATIENCE


async def found_by(*command: str) -> Any:
    """What ``command`` prints. It imports nothing of what this process can import beside its own packages."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return json.loads(out)
