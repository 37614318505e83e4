"""Whom the error of an attempt counts against."""

from __future__ import annotations

import pytest

from anywire import errors
from anywire.pipeline.health.blame import Blame, blame_for

BROKEN = errors.EngineFailed("broken")
LOST = errors.AgentLost("lost")
UNREACHED = errors.AgentUnavailable("no link")
REFUSED = errors.Refused("busy")
INVALID = errors.InvalidRequest("no")
OF_THE_MODEL = errors.EngineFailed("out of memory")
OF_THE_MODEL.concerns = "model"


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (BROKEN, Blame("agent")),
        (LOST, Blame("agent", is_loss=True)),
        (UNREACHED, Blame("link")),
        (REFUSED, Blame("")),
        (INVALID, Blame("")),
        (OF_THE_MODEL, Blame("model")),
    ],
)
def test_an_error_counts_against_one_thing_or_nothing(error: errors.AnywireError, blame: Blame) -> None:
    assert blame_for(error, "m", is_blameless=False, is_linked=False, is_from_below=False) == blame
    assert blame_for(error, "m", is_blameless=True, is_linked=False, is_from_below=False) == Blame("")


def test_the_loss_of_one_of_several_links_is_the_links() -> None:
    assert blame_for(LOST, "m", False, is_linked=True, is_from_below=False) == Blame("link", is_loss=True)


def test_what_fails_below_an_agent_is_no_loss_of_it() -> None:
    for error in (BROKEN, LOST):
        assert blame_for(error, "m", False, False, is_from_below=True) == Blame("agent", is_from_below=True)
    assert blame_for(INVALID, "m", False, False, is_from_below=True) == Blame("")


def test_an_error_of_a_model_counts_against_nobody_where_none_was_asked() -> None:
    assert blame_for(OF_THE_MODEL, "", False, False, False) == Blame("")
