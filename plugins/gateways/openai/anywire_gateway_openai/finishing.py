"""aiohttp's server, which is closed without losing requests that have begun to come in."""

from __future__ import annotations

from aiohttp import web


class FinishingServer(web.Server):
    """Base of the servers of gateways."""

    def pre_shutdown(self) -> None:
        """Take no further request: connections without one are closed, the others when theirs is answered. The rest of
        a body that has begun is read first: aiohttp reads nothing more of a connection that is to be closed, and the
        request would wait for its body until it is cut off."""
        for connection in self.connections:
            request, waiting = connection._current_request, connection._messages
            body = request.content if request is not None else waiting[-1][1] if waiting else None
            if body is None or body.is_eof():
                connection.close()
            else:
                body.on_eof(connection.close)
