"""GETs that are answered somewhere else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urljoin, urlsplit

from anywire_engine_openai.http.answer import Answer
from anywire_engine_openai.http.client import Client, header_lines
from anywire_engine_openai.http.faults import Closed, Fault

MAX_REDIRECTS = 10

_REDIRECTS = (301, 302, 303, 307, 308)


async def get(client: Client, url: str, headers: Mapping[str, str], secret: Collection[str]) -> Answer:
    """The answer to a GET of ``url``, or of where redirects lead to from there; another server is not told the headers
    named in ``secret``. Sent again over a new connection where a kept one has ended meanwhile. Raises `Fault`."""
    for _ in range(MAX_REDIRECTS + 1):
        lines = header_lines(headers)
        try:
            answer = await client.send("GET", url, lines)
        except Closed as fault:
            if not fault.was_idle:
                raise
            answer = await client.send("GET", url, lines, anew=True)
        location = answer.headers.get("location")
        if answer.status not in _REDIRECTS or not location:
            return answer
        answer.close()
        try:
            there = urljoin(url, location)
            is_elsewhere = urlsplit(there)[:2] != urlsplit(url)[:2]
        except ValueError as error:
            raise Fault(f"a redirect to what is no address: {error}") from error
        if is_elsewhere:
            headers = {name: value for name, value in headers.items() if name not in secret}
        url = there
    raise Fault(f"more than {MAX_REDIRECTS} redirects")
