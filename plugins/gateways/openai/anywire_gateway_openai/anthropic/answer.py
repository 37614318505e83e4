"""A message as clients of Anthropic's API get it, made of an engine's answer: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from anywire.messages import Chunk
from anywire_gateway_openai.answers import MESSAGE_PREFIX
from anywire_gateway_openai.anthropic.blocks import Event, MessageBlocks
from anywire_gateway_openai.anthropic.messages import Object
from anywire_gateway_openai.first_choice import first_choices, piece_of, token_counts

_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""Why a message ends, by the chat's reason; others are the end of a turn."""
NO_USAGE: Object = {"input_tokens": 0, "output_tokens": 0}


class Ending(NamedTuple):
    """Why an answer ends, as the engine says it; empty as long as it does not. ``stop`` is the text at which it has
    stopped, where the engine tells that."""

    reason: str = ""
    stop: str = ""


def message_head(task_id: str, model: str) -> Object:
    """A message that has no content yet. Engines tell usage at the end, so it is zero here."""
    return {
        "id": MESSAGE_PREFIX + task_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": NO_USAGE,
    }


def whole_message(task_id: str, model: str, chunk: Chunk, stop_sequences: Sequence[str]) -> Object:
    """The message of a whole answer. Raises `StreamCorrupted` when what the agent sent as JSON is none."""
    blocks = MessageBlocks(task_id)
    _, ending = add_chunk(blocks, chunk)
    blocks.end()
    return {
        **message_head(task_id, model),
        "content": blocks.content,
        **stop_of(blocks, ending, stop_sequences),
        "usage": usage_of(chunk.usage),
    }


def add_chunk(blocks: MessageBlocks, chunk: Chunk) -> tuple[list[Event], Ending]:
    """Add what a chunk brings: the events of it, and why the answer ends. Raises `StreamCorrupted`."""
    if not chunk.extra:
        events = [event for text in chunk.deltas if text for event in blocks.add_text(text)]
        return events, Ending(chunk.finish_reason)
    events, ending = [], Ending(chunk.finish_reason)
    for choice in first_choices(chunk.extra):
        if piece := piece_of(choice):
            events += blocks.add(piece)
        elif isinstance(text := choice.get("text"), str) and text:
            events += blocks.add_text(text)
        stop = choice.get("stop_reason")
        ending = Ending(
            ending.reason or str(choice.get("finish_reason") or ""), stop if isinstance(stop, str) else ending.stop
        )
    return events, ending


def stop_of(blocks: MessageBlocks, ending: Ending, stop_sequences: Sequence[str]) -> Object:
    """``stop_reason`` and ``stop_sequence`` of an answer that has ended."""
    reason = _REASONS.get(ending.reason, "end_turn")
    if reason == "end_turn" and blocks.has_refused:
        reason = "refusal"
    elif reason == "end_turn" and blocks.has_calls:  # some servers end with `stop` there
        reason = "tool_use"
    elif reason == "end_turn" and ending.stop in stop_sequences:
        return {"stop_reason": "stop_sequence", "stop_sequence": ending.stop}
    return {"stop_reason": reason, "stop_sequence": None}


def usage_of(usage: str) -> Object:
    """The usage of a message; zero where the engine tells none. Tokens of the prompt that an engine had in its cache
    are counted beside ``input_tokens``, as this API does it. Raises `StreamCorrupted`."""
    counts = token_counts(usage)
    if counts is None:
        return dict(NO_USAGE)
    told: Object = {"input_tokens": max(counts.given - counts.cached, 0), "output_tokens": counts.made}
    if counts.cached:
        told |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": min(counts.cached, counts.given)}
    if counts.thought:
        told["output_tokens_details"] = {"thinking_tokens": counts.thought}
    return told
