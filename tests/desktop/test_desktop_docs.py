"""The how-to for desktop apps does what it says, and leaves no command out."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from tests.desktop.bridges import bridge
from tests.integration.test_docs import DOCS, Reader, blocks, pattern

PAGE = DOCS / "how-to" / "desktop-app.md"
pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("name", ["local.py", "ask.py"])
async def test_each_program_says_what_the_page_shows(tmp_path: Path, name: str, dds_domain: int) -> None:
    reader = Reader(tmp_path, dds_domain)
    reader.environment["XDG_CONFIG_HOME"] = str(tmp_path)
    parts = blocks(PAGE)
    (number,) = (number for number, block in enumerate(parts) if block.file == name)
    reader.save(parts[number])
    assert parts[number + 1].text.strip() == f"python {name}"
    said = await reader.run(f"{sys.executable} {name}")
    assert re.fullmatch(pattern(parts[number + 2].text), said.strip(), re.DOTALL), said


async def test_the_page_names_every_command(tmp_path: Path) -> None:
    async with bridge(tmp_path) as app:
        commands = await asyncio.wait_for(app.call("list_commands"), None)
    text = PAGE.read_text()
    assert [name for name in commands if f"`{name}`" not in text] == []
    listed = re.findall(r"`([a-z]+(?:_[a-z]+)+|cancel)`", "\n".join(re.findall(r"^\| `[a-z_]+`.*\|$", text, re.M)))
    known = {*commands, "tool_call", "tool_result", "thinking_chunk", "full_identifier"}
    assert sorted(name for name in listed if name not in known) == []
