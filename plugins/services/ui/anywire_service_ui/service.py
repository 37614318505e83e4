"""The service ``ui``: serves the page, and signs browsers in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pydantic

from anywire.access import Presented
from anywire.context import Context
from anywire.errors import InvalidRequest, Unauthenticated
from anywire.route import Request, Response, Route
from anywire.service import Service
from anywire_service_ui.files import START, PageFiles
from anywire_service_ui.key_routes import key_routes
from anywire_service_ui.record_routes import RecordHandlers, record_routes
from anywire_service_ui.sign_in import SECONDS, SignInCodes

MAX_BYTES = 4096
"""Of a body with a key or a code."""
PAGE = "/ui"
SHOWN = ("deliberation",)
"""Services that have a view of their own."""
REPORTS = f"{PAGE}/report"
"""Below it a report is served once, to whoever has asked for that with a key."""


class PageConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    page: bool = pydantic.Field(True, description="Serve the page at `/ui`. `false` switches it off in `anywire up`.")
    records: list[Path] = pydantic.Field(
        default_factory=list,
        max_length=32,
        description="Folders with records of experiments: whoever observes is shown their reports in the page.",
    )


class Parts(msgspec.Struct, frozen=True):
    """``services`` that have a view and run here; ``records`` counts the folders of records; ``page`` is the version of
    the page's files, so that a tab from before an upgrade knows of it."""

    services: list[str]
    records: int
    page: str


class _Key(msgspec.Struct):
    key: str


class _Code(msgspec.Struct):
    code: str


_read_key = msgspec.json.Decoder(_Key).decode
_read_code = msgspec.json.Decoder(_Code).decode


class Page(Service):
    """Serves the files of the page to everybody; what they show is asked of the API, with the key of who looks."""

    name = "ui"
    Config = PageConfig

    config: PageConfig

    def __init__(self, config: PageConfig) -> None:
        super().__init__(config)
        self._context: Context | None = None
        self._files: PageFiles | None = None
        self._codes: SignInCodes | None = None
        self._records: RecordHandlers | None = None

    async def start(self, context: Context) -> None:
        if not self.config.page:
            return
        self._context = context
        self._files = PageFiles()
        self._codes = SignInCodes(context.clock.now)
        folders = [each.expanduser().absolute() for each in self.config.records]
        self._records = RecordHandlers(folders, context.clock, REPORTS)
        summary = "The page in the browser: the fleet, its queue, its tasks and models."
        context.routes.add(
            Route("GET", PAGE, self._start_page, role=None, at_root=True, summary=summary),
            Route(
                "GET",
                REPORTS + "/{ticket}",
                self._records.report,
                role=None,
                at_root=True,
                summary="A report of an experiment, once.",
            ),
            Route("GET", PAGE + "/{file}", self._file, role=None, at_root=True, summary="A file of the page."),
            Route("GET", PAGE + "/{folder}/{file}", self._file, role=None, at_root=True, summary="A file of the page."),
            Route(
                "POST",
                PAGE + "/sign-in",
                self._sign_in,
                role=None,
                at_root=True,
                body_limit=MAX_BYTES,
                summary='Signs a browser in: the key of `{"code": …}`, once.',
            ),
            Route(
                "POST",
                "/ui/codes",
                self._new_code,
                body_limit=MAX_BYTES,
                summary='A code that signs a browser in, once and within minutes, with the key of `{"key": …}`.',
            ),
            Route(
                "GET",
                "/ui/parts",
                self._parts,
                summary="What the page can show something of, and its version.",
                gives=Parts,
            ),
            *record_routes(self._records),
            *key_routes(context),
        )

    async def close(self) -> None:
        self._codes = None
        if self._records is not None:
            self._records.close()

    async def _parts(self, request: Request) -> Response:
        """A page that asks for what is not there would write errors into its console."""
        assert self._context is not None
        assert self._files is not None
        found = [name for name in SHOWN if self._context.services.get(name) is not None]
        return Response(msgspec.json.encode(Parts(found, len(self.config.records), self._files.version)))

    async def _start_page(self, request: Request) -> Response:
        if request.path.endswith("/"):  # the page names its files from beside it
            return Response(status=308, headers={"location": "../ui"})
        return self._answer(START, request)

    async def _file(self, request: Request) -> Response:
        return self._answer("/".join(request.names.values()), request)

    def _answer(self, name: str, request: Request) -> Response:
        assert self._files is not None
        found = self._files.answer(name, request.headers)
        if found is None:
            return Response(b"there is no such file of the page\n", 404, "text/plain; charset=utf-8")
        return found

    async def _new_code(self, request: Request) -> Response:
        assert self._context is not None
        assert self._codes is not None
        try:
            key = _read_key(request.body).key
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InvalidRequest(f'the body must be {{"key": "…"}}: {error}', param="key") from error
        if self._context.access.needs_key:
            self._context.access.caller(Presented(token=key, peer="a sign-in code"))
        code = self._codes.new(key)
        return Response(msgspec.json.encode({"code": code, "expires_in": int(SECONDS)}), 201)

    async def _sign_in(self, request: Request) -> Response:
        assert self._codes is not None
        try:
            code = _read_code(request.body).code
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InvalidRequest(f'the body must be {{"code": "…"}}: {error}', param="code") from error
        key = self._codes.take(code)
        if not key:
            raise Unauthenticated("this sign-in link was used already, or is too old: run `anywire ui` again")
        return Response(msgspec.json.encode({"key": key}), headers={"cache-control": "no-store"})
