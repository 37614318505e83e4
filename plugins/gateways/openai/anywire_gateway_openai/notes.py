"""What is noted at a request while it is answered, for its line in the log and the head of its answer."""

from __future__ import annotations

from typing import Final

from aiohttp.web import RequestKey

from anywire.task_stream import TaskStream
from anywire.tracing import Scope
from anywire_gateway_openai.errors import ErrorForm

TASK: Final = RequestKey("anywire_task", TaskStream)
FIRST: Final = RequestKey("anywire_first", float)
"""When the first piece of its stream was there, by `time.perf_counter`."""
MODEL: Final = RequestKey("anywire_model", str)
"""The model that the client names."""
ERROR: Final = RequestKey("anywire_error", str)
"""The code of the error that ended a stream which had begun."""
REQUEST_ID: Final = RequestKey("anywire_request_id", str)
"""The id that the client or the gateway gave it."""
HEADERS: Final = RequestKey("anywire_headers", tuple)
"""Headers, as pairs of name and value, that whatever answer it gets will have."""
ERROR_FORM: Final = RequestKey("anywire_error_form", ErrorForm)
"""How the endpoint that was asked tells errors."""
SCOPE: Final = RequestKey("anywire_scope", Scope)
"""Its span, where its trace is kept."""
