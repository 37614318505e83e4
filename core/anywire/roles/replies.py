"""Final chunks and results on their way to a hub: they are sent whatever stands in their way, or replaced."""

from __future__ import annotations

import logging

from anywire.boundary import Boundary
from anywire.clock import Clock
from anywire.errors import AnywireError, Congested, EngineFailed, PayloadTooLarge, to_wire
from anywire.messages import Chunk, CommandResult
from anywire.pipeline.queue.waiting_send import send_when_room
from anywire.transport import Reply

log = logging.getLogger(__name__)

MAX_ERROR = 4096
"""Characters of an error that takes the place of a final message which could not be sent."""

Final = Chunk | CommandResult


async def send_final(
    reply: Reply, final: Final, clock: Clock, boundary: Boundary, failure: Exception | None = None
) -> None:
    """Send a final message, as soon as there is room. One that cannot be sent is replaced by an error, once.
    ``failure`` is what ``send`` has raised already."""
    replaced = False
    while True:
        if failure is not None and not isinstance(failure, Congested):
            if not isinstance(failure, AnywireError):
                boundary.failed("transport", "send", failure, _name(final))
            if replaced:
                log.error("the end of %s cannot be sent: %s", _name(final), failure)
                return
            replaced = True
            final, failure = _in_its_place(final, failure), None
        try:
            await send_when_room(reply.send, reply.drain, final, clock, congested=failure is not None)
        except Exception as error:
            failure = error
        else:
            return


def _name(final: Final) -> str:
    return final.task_id if isinstance(final, Chunk) else final.id


def _in_its_place(final: Final, failure: Exception) -> Final:
    """The error that is sent for a final message which cannot be sent."""
    if isinstance(failure, PayloadTooLarge):
        error = EngineFailed(str(failure)[:MAX_ERROR], detail_code=failure.code)
    else:
        error = EngineFailed(f"the answer cannot be sent: {failure}"[:MAX_ERROR])
    if isinstance(final, CommandResult):
        return CommandResult(final.hub_id, final.id, final.seq, final=True, error=to_wire(error))
    return Chunk(final.hub_id, final.task_id, final.attempt, final.seq, final=True, error=to_wire(error))
