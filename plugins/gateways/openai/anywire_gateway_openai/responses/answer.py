"""The object of a response, as clients get it and as it is kept: pure functions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from anywire import errors
from anywire.conversation_items import Item
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire_gateway_openai.answers import RESPONSE_PREFIX, encodable
from anywire_gateway_openai.errors import error_code, status_of
from anywire_gateway_openai.first_choice import first_choices, piece_of, token_counts
from anywire_gateway_openai.responses.output import CUT_OFF, Event, ResponseOutput
from anywire_gateway_openai.responses.request import Asked, Object


def response_head(asked: Asked, task_id: str, model: str, store: bool) -> Object:
    """A response that has not been answered: what the client asked for, with OpenAI's values where it said nothing."""
    fields = asked.fields
    text: Object = {"format": {"type": "text"}}
    if fields.text is not None:
        text = {"format": fields.text.format or text["format"]}
        if fields.text.verbosity is not None:
            text["verbosity"] = fields.text.verbosity
    reasoning = fields.reasoning
    conversation = fields.conversation_id
    return {
        "id": RESPONSE_PREFIX + task_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "queued" if fields.background else "in_progress",
        "background": bool(fields.background),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": fields.previous_response_id,
        "conversation": {"id": conversation} if conversation else None,
        "prompt_cache_key": fields.prompt_cache_key,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "safety_identifier": fields.safety_identifier,
        "service_tier": fields.service_tier,
        "store": store,
        "temperature": fields.temperature,
        "text": text,
        "tool_choice": fields.tool_choice or "auto",
        "tools": fields.tools or [],
        "top_logprobs": fields.top_logprobs,
        "top_p": fields.top_p,
        "truncation": fields.truncation or "disabled",
        "usage": None,
        "user": fields.user,
        "metadata": fields.metadata or {},
    }


def answered(head: Object, task_id: str, model: str, chunk: Chunk, ended: float = 0.0) -> Object:
    """The response of ``head`` with a whole answer, now or at the Unix time ``ended``. Raises `StreamCorrupted` when
    what the agent sent as JSON is none."""
    output = ResponseOutput(task_id)
    _, finish = add_chunk(output, chunk)
    output.end(finish)
    return whole_response({**head, "model": model}, output.items, finish, chunk.usage, ended)


def add_chunk(output: ResponseOutput, chunk: Chunk) -> tuple[list[Event], str]:
    """Add what a chunk brings: the events of it, and why the answer ends, empty as long as it does not. Raises
    `StreamCorrupted`."""
    if not chunk.extra:
        return [event for text in chunk.deltas if text for event in output.add_text(text)], chunk.finish_reason
    events: list[Event] = []
    finish = chunk.finish_reason
    for choice in first_choices(chunk.extra):  # a response has one answer
        if piece := piece_of(choice):
            events += output.add(piece, choice.get("logprobs"))
        finish = finish or str(choice.get("finish_reason") or "")
    return events, finish


def whole_response(head: Object, items: Sequence[Item], finish: str, usage: str, ended: float = 0.0) -> Object:
    """The response once its answer is whole, or was cut off."""
    reason = CUT_OFF.get(finish)
    return {
        **head,
        "status": "incomplete" if reason else "completed",
        "completed_at": None if reason else int(ended or time.time()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": list(items),
        "usage": _usage(usage),
    }


def failed_response(head: Object, error: AnywireError, items: Sequence[Item] = ()) -> Object:
    """The response once it has failed, or was cancelled."""
    if isinstance(error, errors.TaskCancelled):
        return {**head, "status": "cancelled", "output": list(items)}
    status = status_of(error)
    kind = "rate_limit_exceeded" if status == 429 else "invalid_prompt" if status < 500 else "server_error"
    told = {"code": kind, "message": encodable(error.message), "type": error_code(error), "param": error.param or None}
    return {**head, "status": "failed", "error": told, "output": list(items)}


def _usage(text: str) -> Object | None:
    counts = token_counts(text)
    if counts is None:
        return None
    return {
        "input_tokens": counts.given,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
        "output_tokens": counts.made,
        "output_tokens_details": {"reasoning_tokens": counts.thought},
        "total_tokens": counts.total,
    }
