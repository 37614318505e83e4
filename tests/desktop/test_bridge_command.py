"""What ``anywire desktop-bridge`` says of wrong options."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from anywire_desktop.command import app


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--memory", "lots"], "--memory: expected a size such as 12 GB, 500 MiB or 1000000, found 'lots'"),
        (["--memory", "200%"], "--memory: expected a share between 0 % and 100 %, found '200%'"),
        (["--log-level", "loud"], "--log-level: expected debug, info, warning or error"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(options: list[str], says: str) -> None:
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 2
    assert says in done.output
