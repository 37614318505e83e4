"""What Ollama's clients ask about models: which there are, what each can, and which are loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import InvalidRequest, ModelNotFound
from anywire.messages import COMMON_KINDS
from anywire.offers import Offer
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_openai.catalogue import json_response
from anywire_gateway_openai.errors import HttpError
from anywire_gateway_openai.ollama import forms
from anywire_gateway_openai.ollama.messages import Object
from anywire_gateway_openai.ollama.names import served, tagged
from anywire_gateway_openai.openapi.form import described
from anywire_gateway_openai.validation import check_members

API_VERSION = "0.12.11"
"""Version of Ollama whose API this is: clients ask for it, to know what they may use."""
NEVER = "2262-04-11T23:47:16Z"
"""When a model is unloaded that Ollama keeps for ever."""
ARCHITECTURE = "anywire"
MAX_NAMED_BYTES = 64 * 1024
"""Bytes of a request that names a model."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

_MAKING = "models are not made here: give an agent the model's file with `anywire models add`"
_REFUSED = {
    "pull": "models are not pulled here: put the model's file beside an agent and add it with `anywire models add`, "
    "or start an agent of the engine openai in front of a server that has it",
    "push": "models are not pushed from here",
    "create": _MAKING,
    "copy": f"{_MAKING}; another name for one is set there (served_name, or models of the engine openai)",
    "delete": "models are not deleted here: stop one with `anywire models stop`, or take it out of its registry",
    "blobs": _MAKING,
}
"""What is not done here, and which of ours does it."""


_named = msgspec.json.Decoder(forms.ModelName)


class _Found(NamedTuple):
    offers: Sequence[Offer]
    kinds: frozenset[str]

    @property
    def is_ready(self) -> bool:
        return any(each.state == "ready" for each in self.offers)

    @property
    def context(self) -> int:
        return max(each.context for each in self.offers)

    def has(self, feature: str) -> bool | None:
        """Whether one of them has it; None where nobody says."""
        said = [each.features[feature] for each in self.offers if feature in each.features]
        return any(said) if said else None


class OllamaCatalogue:
    def __init__(self, context: Context, callers: Callers, *, body_timeout: float) -> None:
        self._context, self._callers = context, callers
        self._body_timeout = body_timeout
        self._since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._version = version("anywire")

    @described(forms.VERSION)
    async def version(self, request: web.BaseRequest) -> web.Response:
        """The version of Ollama's API that is served, and Anywire's own."""
        return json_response({"version": API_VERSION, "anywire": self._version})

    @described(forms.LISTED)
    async def tags(self, request: web.BaseRequest) -> web.Response:
        """The models of all agents that have not failed, in Ollama's form; each name has a tag."""
        models = [self._listed(name, found) for name, found in self._found(request[CALLER]).items()]
        return json_response({"models": models})

    @described(forms.LISTED)
    async def ps(self, request: web.BaseRequest) -> web.Response:
        """The models that are loaded, in Ollama's form."""
        models = [
            {
                **self._listed(name, found),
                "expires_at": NEVER,
                "size_vram": 0,
                "context_length": found.context,
            }
            for name, found in self._found(request[CALLER]).items()
            if found.is_ready
        ]
        return json_response({"models": models})

    @described(forms.SHOW)
    async def show(self, request: web.BaseRequest) -> web.Response:
        """What a model can, in Ollama's form."""
        name, known = await self._asked_for(request)
        found = known.get(served(name, known))
        if found is None:
            raise not_found(name)
        info: Object = {"general.architecture": ARCHITECTURE, "general.basename": name}
        if found.context:
            info[f"{ARCHITECTURE}.context_length"] = found.context
        return json_response(
            {
                "modelfile": f"# This model is served by Anywire.\nFROM {name}\n",
                "parameters": "",
                "template": "",
                "license": "",
                "details": _DETAILS,
                "model_info": info,
                "capabilities": _capabilities(found),
                "modified_at": self._since,
            }
        )

    @described(forms.PULL)
    async def pull(self, request: web.BaseRequest) -> web.Response:
        """Success for a model that is there; none is fetched."""
        name, known = await self._asked_for(request)
        if served(name, known) not in known:
            raise _not_done("pull")
        return json_response({"status": "success"})

    @described(forms.REFUSED)
    async def push(self, request: web.BaseRequest) -> web.Response:
        """Refused: no model is pushed from here."""
        raise _not_done("push")

    @described(forms.REFUSED)
    async def create(self, request: web.BaseRequest) -> web.Response:
        """Refused: no model is made here."""
        raise _not_done("create")

    @described(forms.REFUSED)
    async def copy(self, request: web.BaseRequest) -> web.Response:
        """Refused: no model is copied here."""
        raise _not_done("copy")

    @described(forms.REFUSED)
    async def delete(self, request: web.BaseRequest) -> web.Response:
        """Refused: no model is deleted here."""
        raise _not_done("delete")

    @described(forms.REFUSED)
    async def blob(self, request: web.BaseRequest, digest: str) -> web.Response:
        """Refused: no files are taken here."""
        raise _not_done("blobs")

    async def _asked_for(self, request: web.BaseRequest) -> tuple[str, dict[str, _Found]]:
        """The name in a request's body, and every model that its caller may use."""
        body = await read_body(request, MAX_NAMED_BYTES, self._body_timeout, any_type=True)
        fields, _ = await check_members(_named, body, MAX_NAMED_BYTES)
        name = fields.model or fields.name
        if not name:
            raise InvalidRequest("model is required", param="model")
        return name, self._found(self._callers.still(request))

    def _found(self, caller: Caller) -> dict[str, _Found]:
        views = {view.agent_id: view for view in self._context.agents()}
        found = {}
        for name, offered in self._context.offers(caller).items():
            there = [(offer, views.get(who)) for who, offer in offered]
            there = [(offer, view) for offer, view in there if view is None or view.status.state != "failed"]
            if name and there:
                kinds = {
                    kind
                    for offer, view in there
                    for kind in offer.kinds or (view.info.capabilities if view is not None else COMMON_KINDS)
                }
                found[name] = _Found([offer for offer, _ in there], frozenset(kinds))
        return found

    def _listed(self, name: str, found: _Found) -> Object:
        digest = next((each.digest for each in found.offers if each.digest), "")
        return {
            "name": tagged(name),
            "model": tagged(name),
            "modified_at": self._since,
            "size": 0,
            "digest": _digest(name, digest),
            "details": _DETAILS,
        }


_DETAILS: dict[str, Any] = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": [],
    "parameter_size": "",
    "quantization_level": "",
}


def not_found(name: str) -> ModelNotFound:
    return ModelNotFound(f"model {name[:256]!r} not found", param="model")


def _capabilities(found: _Found) -> list[str]:
    """Tools are left out only where a model is known to have none: a task is refused for nothing else either."""
    capabilities = []
    if found.kinds & {"chat", "completion"}:
        capabilities.append("completion")
        if found.has("tools") is not False:
            capabilities.append("tools")
        capabilities += [name for name in ("vision", "thinking") if found.has(name)]
    if "embedding" in found.kinds:
        capabilities.append("embedding")
    return capabilities


def _digest(name: str, digest: str) -> str:
    """That of the weights, or of the name where nobody knows it: clients expect the text of a SHA-256."""
    known = _SHA256.search(digest)
    return known[0] if known else hashlib.sha256(f"{name}\0{digest}".encode()).hexdigest()


def _not_done(what: str) -> HttpError:
    return HttpError(400, "not_supported", _REFUSED[what])
