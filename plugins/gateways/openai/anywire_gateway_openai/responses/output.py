"""From what an engine answers to the output of a response: its items, and the events that tell how they come to be.

`ResponseOutput` is fed with pieces of a chat's answer. A whole answer is one piece, so that a streamed response and a
whole one consist of the same items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from anywire.conversation_items import MAX_ITEMS, Item
from anywire.errors import StreamCorrupted
from anywire_gateway_openai.answers import encodable
from anywire_gateway_openai.first_choice import CallNumbers, call_id, called

_encode = msgspec.json.Encoder().encode

Event = dict[str, Any]
CUT_OFF = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by the chat's reason to end."""
_REASONING = ("reasoning_content", "reasoning")
"""Members in which servers tell what a model thought; there is no standard for it."""


class _Part:
    """One part of an item's content that is being made; ``kind`` is that of `_KINDS`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.texts: list[str] = []
        self.logprobs: list[Mapping[str, Any]] = []
        self.annotations: list[Mapping[str, Any]] = []

    def whole(self) -> Item:
        text = "".join(self.texts)
        if self.kind == "output_text":
            return {"type": "output_text", "text": text, "annotations": self.annotations, "logprobs": self.logprobs}
        return {"type": self.kind, ("refusal" if self.kind == "refusal" else "text"): text}


class _Item:
    """One item that is being made, in its place among them."""

    def __init__(self, place: int, head: Item) -> None:
        self.place, self.head = place, head
        self.parts: list[_Part] = []
        self.texts: list[str] = []
        self.is_open = True

    @property
    def kind(self) -> str:
        return str(self.head["type"])

    def whole(self, status: str) -> Item:
        if self.kind == "function_call":
            return {**self.head, "arguments": "".join(self.texts), "status": status}
        content = [each.whole() for each in self.parts]
        return {**self.head, "content": content, "status": status}


class ResponseOutput:
    """``task_id`` is what the ids of the items are made of, so that they are the same whoever makes them."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._items: list[_Item] = []
        self._made = {"message": 0, "reasoning": 0, "function_call": 0}
        """Items by their type."""
        self._said: _Item | None = None
        """The newest item that is no function call; of these it alone may be open."""
        self._calls: list[_Item] = []
        self._numbers = CallNumbers()
        self._done: dict[int, Item] = {}

    @property
    def items(self) -> list[Item]:
        """Those that are whole."""
        return [self._done[place] for place in sorted(self._done)]

    def add_text(self, text: str) -> list[Event]:
        """A piece of the answer's text."""
        return self._add("message", "output_text", text)

    def add(self, piece: Mapping[str, Any], logprobs: object = None) -> list[Event]:
        """A piece of a chat's message: its ``delta``, or a whole ``message``, with what its choice says of log
        probabilities. Members that are not known are passed over, and those that have another type than a chat's.
        Raises `StreamCorrupted` for more items than a conversation may have."""
        events: list[Event] = []
        thought = next((text for name in _REASONING if isinstance(text := piece.get(name), str) and text), "")
        if thought:
            events += self._add("reasoning", "reasoning_text", thought)
        content, said = piece.get("content"), _content(logprobs)
        if isinstance(content, str) and (content or said):
            events += self._add("message", "output_text", content, said)
        for annotation in _list(piece.get("annotations")):
            events += self._annotate(annotation)
        refusal = piece.get("refusal")
        if isinstance(refusal, str) and refusal:
            events += self._add("message", "refusal", refusal)
        calls = [call for call in _list(piece.get("tool_calls")) if isinstance(call, dict)]
        for call, number in zip(calls, self._numbers.of(calls), strict=True):
            events += self._call(call, number)
        return events

    def end(self, finish_reason: str) -> list[Event]:
        """The answer is over. What was cut off is incomplete. An answer without anything has an empty text."""
        events = [] if self._items else self.add_empty()
        for item in self._items:
            is_cut = finish_reason in CUT_OFF and item is self._items[-1]
            events += self._close(item, "incomplete" if is_cut else "completed")
        return events

    def add_empty(self) -> list[Event]:
        return self._add("message", "output_text", "")

    # Inside

    def _add(self, kind: str, part_kind: str, text: str, said: list[Mapping[str, Any]] | None = None) -> list[Event]:
        events: list[Event] = []
        last = self._said
        if last is None or not last.is_open or last.kind != kind:
            events += self._close_said()
            last, begun = self._begin(kind)
            self._said = last
            events += begun
        part, begun = self._part(last, part_kind)
        events += begun
        where = {"item_id": last.head["id"], "output_index": last.place, "content_index": len(last.parts) - 1}
        text = encodable(text)
        part.texts.append(text)
        if part_kind == "output_text":
            part.logprobs += said or []
            if text or said:
                events.append({"type": "response.output_text.delta", **where, "delta": text, "logprobs": said or []})
        elif text:
            events.append({"type": f"response.{part_kind}.delta", **where, "delta": text})
        return events

    def _begin(self, kind: str, **members: Any) -> tuple[_Item, list[Event]]:
        if len(self._items) >= MAX_ITEMS:
            raise StreamCorrupted(f"the agent sent an answer of more than {MAX_ITEMS} items", phase="streaming")
        number = self._made[kind]
        self._made[kind] += 1
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind]
        head: Item = {"id": f"{prefix}_{self._task_id}" + (f"_{number}" if number else ""), "type": kind, **members}
        begun: Item = {**head, "status": "in_progress"}
        if kind == "message":
            head["role"] = "assistant"
            begun |= {"role": "assistant", "content": []}
        elif kind == "reasoning":
            head["summary"] = []
            begun |= {"summary": [], "content": []}
        else:
            begun["arguments"] = ""
        item = _Item(len(self._items), head)
        self._items.append(item)
        return item, [{"type": "response.output_item.added", "output_index": item.place, "item": begun}]

    def _part(self, item: _Item, kind: str) -> tuple[_Part, list[Event]]:
        """The part of this kind that is being made, a new one if need be."""
        if item.parts and item.parts[-1].kind == kind:
            return item.parts[-1], []
        events = self._close_part(item)
        part = _Part(kind)
        item.parts.append(part)
        events.append({"type": "response.content_part.added", **_where(item), "part": part.whole()})
        return part, events

    def _annotate(self, annotation: object) -> list[Event]:
        kind = annotation.get("type") if isinstance(annotation, dict) else None
        if not isinstance(annotation, dict) or not isinstance(kind, str):
            return []
        nested = annotation.get(kind)
        if isinstance(nested, dict):  # as a chat has it
            annotation = {"type": kind, **nested}
        events = self._add("message", "output_text", "")
        item = self._said
        assert item is not None
        found = item.parts[-1].annotations
        found.append(annotation)
        event = {"type": "response.output_text.annotation.added", **_where(item)}
        return [*events, {**event, "annotation_index": len(found) - 1, "annotation": annotation}]

    def _call(self, call: Mapping[str, Any], number: int) -> list[Event]:
        function, own_id, name = call.get("function"), call_id(call), called(call)
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, dict):  # some servers send the object, and not its text
            arguments = _encode(arguments).decode()
        events: list[Event] = []
        if number == len(self._calls):
            events += self._close_said()
            item, begun = self._begin("function_call", call_id=own_id or f"call_{self._task_id}_{number}", name=name)
            self._calls.append(item)
            events += begun
        else:
            item = self._calls[number]
            if own_id != item.head["call_id"] or name != item.head["name"]:  # else it says the same again
                item.head["name"] += name
        if isinstance(arguments, str) and arguments:
            item.texts.append(encodable(arguments))
            where = {"item_id": item.head["id"], "output_index": item.place}
            events.append({"type": "response.function_call_arguments.delta", **where, "delta": item.texts[-1]})
        return events

    def _close_said(self) -> list[Event]:
        return self._close(self._said, "completed") if self._said is not None else []

    def _close_part(self, item: _Item) -> list[Event]:
        if not item.parts:
            return []
        part, where = item.parts[-1].whole(), _where(item)
        said: Event = {"type": f"response.{part['type']}.done", **where}
        if part["type"] == "refusal":
            said["refusal"] = part["refusal"]
        else:
            said["text"] = part["text"]
        if part["type"] == "output_text":
            said["logprobs"] = part["logprobs"]
        return [said, {"type": "response.content_part.done", **where, "part": part}]

    def _close(self, item: _Item, status: str) -> list[Event]:
        if not item.is_open:
            return []
        item.is_open = False
        whole = self._done[item.place] = item.whole(status)
        if item.kind == "function_call":
            events: list[Event] = [
                {
                    "type": "response.function_call_arguments.done",
                    "item_id": whole["id"],
                    "output_index": item.place,
                    "name": whole["name"],
                    "arguments": whole["arguments"],
                }
            ]
        else:
            events = self._close_part(item)
        return [*events, {"type": "response.output_item.done", "output_index": item.place, "item": whole}]


def _where(item: _Item) -> Event:
    return {"item_id": item.head["id"], "output_index": item.place, "content_index": len(item.parts) - 1}


def _list(given: object) -> list[Any]:
    return given if isinstance(given, list) else []


def _content(logprobs: object) -> list[Mapping[str, Any]]:
    """The log probabilities of a piece, in the form of a response."""
    found = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [_logprob(each) for each in _list(found) if isinstance(each, dict)]


def _logprob(given: Mapping[str, Any]) -> Mapping[str, Any]:
    top = given.get("top_logprobs")
    others = [{**each, "bytes": each.get("bytes") or []} for each in _list(top) if isinstance(each, dict)]
    return {**given, "bytes": given.get("bytes") or [], "top_logprobs": others}
