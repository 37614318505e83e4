"""The HTTP transport: one POST per task over kept-alive connections, answers streamed as JSON lines."""

from anywire_http.config import HttpConfig
from anywire_http.transport import HttpTransport

__all__ = ["HttpConfig", "HttpTransport"]
