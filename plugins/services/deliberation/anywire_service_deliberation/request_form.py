"""The form of a request for a deliberation, as REST has it: its members, and what each of them may be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import pydantic

from anywire.errors import InvalidRequest
from anywire.plugins import describe_validation
from anywire_service_deliberation.question import MAX_MEMBERS, MAX_REQUIREMENTS, MAX_ROUNDS, MAX_TASK_CHARS

MAX_ID_CHARS = 256
MAX_NAME_CHARS = 64
MAX_MODEL_CHARS = 256
MAX_STYLE_CHARS = 20_000
MAX_REQUIREMENT_CHARS = 4000
MAX_METADATA_BYTES = 16 * 1024

_Role = Annotated[str, pydantic.Field(min_length=1, max_length=MAX_NAME_CHARS)]
_Model = Annotated[str, pydantic.Field(max_length=MAX_MODEL_CHARS)]
_Requirement = Annotated[str, pydantic.Field(min_length=1, max_length=MAX_REQUIREMENT_CHARS)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class MemberRequest(_Strict):
    name: Annotated[str, pydantic.Field(pattern=rf"^[^/\s]{{1,{MAX_NAME_CHARS}}}$")] | None = None
    role: _Role | None = None
    model: _Model | None = None
    temperature: Annotated[float, pydantic.Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    seed: Annotated[int, pydantic.Field(ge=-(2**53), le=2**53)] | None = None
    style: Annotated[str, pydantic.Field(max_length=MAX_STYLE_CHARS)] | None = None


class DeliberationRequest(_Strict):
    """A request. What is left out is the council's, if one is named, or as it is configured."""

    task: Annotated[str, pydantic.Field(min_length=1, max_length=MAX_TASK_CHARS)]
    id: Annotated[str, pydantic.Field(min_length=1, max_length=MAX_ID_CHARS)] | None = None
    council: Annotated[str, pydantic.Field(max_length=MAX_NAME_CHARS)] | None = None
    role: _Role | None = None
    members: Any = None
    """See `read_members`."""
    rounds: Annotated[int, pydantic.Field(ge=0, le=MAX_ROUNDS)] | None = None
    rubric: str | dict[str, Any] | None = None
    requirements: Annotated[list[_Requirement], pydantic.Field(max_length=MAX_REQUIREMENTS)] = []
    quorum: Annotated[int, pydantic.Field(ge=1, le=MAX_MEMBERS)] | None = None
    timeout: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] | None = None
    aggregation: Literal["borda", "mean", "median", "approval", "pairwise"] | None = None
    synthesis: bool = False
    max_tokens: Annotated[int, pydantic.Field(ge=1, le=1_000_000)] | None = None
    metadata: dict[str, Any] = {}

    @pydantic.field_validator("task")
    @classmethod
    def _asks_something(cls, task: str) -> str:
        if not task.strip():
            raise ValueError("it is blank")
        return task

    @pydantic.field_validator("id")
    @classmethod
    def _can_be_named(cls, given: str | None) -> str | None:
        if given is not None and not given.isprintable():
            raise ValueError("an id has printable characters alone")
        return given


def read_members(given: Any) -> list[MemberRequest]:
    """Members by their number, or as a list of objects. Raises `InvalidRequest`."""
    if isinstance(given, int) and not isinstance(given, bool):
        if not 1 <= given <= MAX_MEMBERS:
            raise InvalidRequest(f"members: there are 1 to {MAX_MEMBERS}, not {given}", param="members")
        return [MemberRequest() for _ in range(given)]
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= MAX_MEMBERS:
        raise InvalidRequest(
            f"members: give their number, or a list of 1 to {MAX_MEMBERS} objects with role, model, temperature, seed",
            param="members",
        )
    found: list[MemberRequest] = []
    for index, each in enumerate(given):
        where = f"members.{index}"
        try:
            found.append(MemberRequest.model_validate(each))
        except pydantic.ValidationError as error:
            raise InvalidRequest(describe_validation(error, MemberRequest, where), param=where) from None
    return found


def read_request(request: Mapping[str, Any]) -> tuple[DeliberationRequest, str]:
    """The request, and its digest: that of everything but its id."""
    try:
        asked = DeliberationRequest.model_validate(dict(request))
    except pydantic.ValidationError as error:
        at = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InvalidRequest(describe_validation(error, DeliberationRequest, ""), param=at) from None
    digest = digest_of({name: getattr(asked, name) for name in request})
    metadata = _encoded(asked.metadata)
    if len(metadata) > MAX_METADATA_BYTES:
        raise InvalidRequest(f"metadata has {len(metadata)} bytes, the limit is {MAX_METADATA_BYTES}", param="metadata")
    return asked, digest


def digest_of(request: Mapping[str, Any]) -> str:
    """What tells requests with the same id apart. Values that `read_request` has read are alike: 60 s and 60.0 s."""
    plain = {name: value for name, value in request.items() if name != "id" and value is not None}
    return hashlib.sha256(_encoded(plain)).hexdigest()


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value, order="deterministic")
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidRequest(f"the request is no JSON in UTF-8: {error}") from None
