"""A response that has ended, told as the events of a stream: a pure function."""

from __future__ import annotations

import msgspec

from anywire.conversation_items import Item
from anywire_gateway_openai.responses.output import Event
from anywire_gateway_openai.responses.request import Object
from anywire_gateway_openai.sse import sse_event

_encode = msgspec.json.Encoder().encode
_TEXTS = {"output_text": "text", "reasoning_text": "text", "refusal": "refusal"}
"""By the type of a part: the member with its text."""


def replayed(response: Object, after: int = -1) -> bytes:
    """The events of a response that has ended, those with a number above ``after``. Each text is one delta."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    begun |= {"error": None, "incomplete_details": None}
    events: list[Event] = [{"type": f"response.{each}", "response": begun} for each in ("created", "in_progress")]
    for place, item in enumerate(response["output"]):
        events += _item_events(item, place)
    status = "failed" if response["status"] == "cancelled" else response["status"]
    events.append({"type": f"response.{status}", "response": {**response, "status": status}})
    return b"".join(
        sse_event(_encode({"type": each["type"], "sequence_number": number, **each}), each["type"])
        for number, each in enumerate(events)
        if number > after
    )


def _item_events(item: Item, place: int) -> list[Event]:
    empty_member: Item = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
    begun: Item = {**item, "status": "in_progress", **empty_member}
    events: list[Event] = [{"type": "response.output_item.added", "output_index": place, "item": begun}]
    where: Event = {"item_id": item["id"], "output_index": place}
    if item["type"] == "function_call":
        events += [
            {"type": "response.function_call_arguments.delta", **where, "delta": item["arguments"]},
            {
                "type": "response.function_call_arguments.done",
                **where,
                "name": item["name"],
                "arguments": item["arguments"],
            },
        ]
    for number, part in enumerate(item.get("content") or ()):
        kind, member = part["type"], _TEXTS[part["type"]]
        here = {**where, "content_index": number}
        said = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
        empty = {**part, member: "", **({"logprobs": [], "annotations": []} if said else {})}
        events += [
            {"type": "response.content_part.added", **here, "part": empty},
            {"type": f"response.{kind}.delta", **here, "delta": part[member], **said},
            {"type": f"response.{kind}.done", **here, member: part[member], **said},
            {"type": "response.content_part.done", **here, "part": part},
        ]
    return [*events, {"type": "response.output_item.done", "output_index": place, "item": item}]
