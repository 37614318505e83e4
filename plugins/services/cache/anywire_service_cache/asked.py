"""Which tasks a cache serves, and by which key it knows their answers."""

from __future__ import annotations

import fnmatch
import hashlib
from typing import NamedTuple

from anywire.caller import Caller
from anywire.canonical_body import Members, canonical_members, canonical_text, question_of
from anywire.demand import MCP_NEED, read_demand
from anywire.submission import Submission
from anywire_service_cache.config import CacheConfig
from anywire_service_cache.directives import HINT, Directives, read_directives

MAX_QUESTION_CHARS = 8000
"""Characters of the longest question that is compared by its meaning."""
PLAIN, STREAMED, WHOLE = b"p", b"s", b"w"
"""What the key of an answer ends with. Plain text is the same however it is asked for; all else is kept in the form in
which it was given."""


class Asked(NamedTuple):
    """``key`` is the same for tasks with the same answer, for one ``scope`` alone: a tenant, or a caller without one.
    ``group`` is the same for tasks that differ in their ``question`` alone, empty where that is no plain text."""

    scope: str
    model: str
    key: bytes
    streamed: bool
    directives: Directives
    group: bytes = b""
    question: str = ""

    @property
    def own_form(self) -> bytes:
        """The key of an answer that is more than plain text."""
        return self.key + (STREAMED if self.streamed else WHOLE)


def scope_of(caller: Caller) -> str:
    """Whose answers are whose: those of a tenant, or of a caller that has none."""
    return f"t{caller.tenant}" if caller.tenant else f"i{caller.id}"


def read_asked(submission: Submission, config: CacheConfig) -> Asked | None:
    """What a task asks; None for one that the cache has nothing to do with.

    Those are: tasks that a service has made (the members of a deliberation are to differ), streams that go on from a
    text, chats in which tools run at the agent, and what the settings or the client leave out. Also tasks that two
    orchestrators have passed on: the second one may have named its own tenant for all of the first one's."""
    hint = submission.hints.get(HINT, "")
    directives = read_directives(submission.cache_control or (hint if isinstance(hint, str) else ""))
    if (
        directives.no_store
        or submission.parent
        or submission.resume
        or submission.kind not in config.kinds
        or submission.hops > (1 if config.passed_on else 0)
        or not _is_for(config.models, submission.model)
    ):
        return None
    members = canonical_members(submission.outline or submission.body)
    if members is None or (config.only_deterministic and not _is_deterministic(submission, members)):
        return None
    text = canonical_text(members)
    if text is None or (b'"mcp"' in text and _runs_tools(submission)):
        return None
    scope = scope_of(submission.caller)
    head = _head(submission, scope)
    key, group, question = _digest(head, text), b"", ""
    if config.semantic is not None and submission.kind != "embedding":
        found = question_of(members)
        if found is not None and len(found.text) <= MAX_QUESTION_CHARS:
            group, question = _digest(head, b"before", found.before), found.text
    return Asked(scope, submission.model, key, submission.stream, directives, group, question)


def _is_for(models: tuple[str, ...], model: str) -> bool:
    return not models or any(fnmatch.fnmatchcase(model, each.replace("[", "[[]")) for each in models)


def _is_deterministic(submission: Submission, members: Members) -> bool:
    temperature = members.get("temperature")
    return submission.kind == "embedding" or (temperature == 0 and not isinstance(temperature, bool))


def _runs_tools(submission: Submission) -> bool:
    needs = read_demand(submission.outline or submission.body).needs
    return any(need.startswith(MCP_NEED) for need in needs)


def _head(submission: Submission, scope: str) -> bytes:
    """All that an answer depends on beside the body. A client that asks for an agent, or for another policy, means
    it. An orchestrator above asks with one key for all of its tenants."""
    named = submission.named_tenant if submission.named_tenant != submission.caller.tenant else ""
    names = (scope, named, submission.kind, submission.model, submission.policy, str(len(submission.prefer)))
    form = "outline" if submission.outline else "body"
    parts = (form, *names, *submission.prefer, *submission.avoid)
    return _digest(*[each.encode(errors="surrogatepass") for each in parts])


def _digest(*parts: bytes) -> bytes:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8))
        hashed.update(part)
    return hashed.digest()
