"""What the documentation says that a deliberation takes is what it takes."""

from __future__ import annotations

from pathlib import Path

from anywire_service_deliberation.request import works_of
from deliberation_numbers import differences, stand


async def test_tasks_messages_tokens_and_bytes_are_those_on_paper(tmp_path: Path) -> None:
    async with stand(tmp_path, 30, 10) as at:
        for members, rounds in ((2, 1), (3, 1), (4, 2)):
            found = await at.measured(members, rounds)
            assert not differences(at.on_paper(members, rounds), found, f"{members} members, {rounds} rounds")
            assert found.tasks == works_of(members, rounds) == (rounds + 1) * members**2
