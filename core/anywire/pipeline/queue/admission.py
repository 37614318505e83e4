"""What a task must pass before it is queued: everything that can be refused at once."""

from __future__ import annotations

import msgspec

from anywire import errors
from anywire.caller import Caller
from anywire.demand import Demand, prompt_tokens
from anywire.errors import AnywireError
from anywire.offers import NAMED_NEED
from anywire.pipeline.fleet.claims import MAX_NAME
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.tasks.limits import CallerLimits, Share
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import QueueKey
from anywire.submission import Submission


class Admission:
    """Open until `close`."""

    def __init__(self, config: PipelineConfig, registry: Registry, limits: CallerLimits) -> None:
        self._config, self._registry, self._limits = config, registry, limits
        self.closed = False

    def check(self, submission: Submission) -> None:
        """Raises `ShuttingDown`, `InvalidRequest`, `PayloadTooLarge` or `ConfigError`."""
        if self.closed:
            raise errors.ShuttingDown("the orchestrator is shutting down")
        if len(submission.model) > MAX_NAME:
            # Nobody can offer it, and events would keep it.
            raise errors.InvalidRequest(f"model must be a name of at most {MAX_NAME} characters", param="model")
        limit, body = self._config.max_body_bytes, submission.body
        if len(body) * 4 > limit and not (body.isascii() and len(body) <= limit):
            size = len(body.encode(errors="surrogatepass"))
            if size > limit:
                raise errors.PayloadTooLarge(
                    f"the request has {size} bytes, the limit is {limit} (pipeline.max_body_bytes)"
                )
        if submission.hops > self._config.max_hops:
            raise errors.ConfigError(
                f"{submission.hops} orchestrators have passed this task on, the limit is {self._config.max_hops} "
                "(pipeline.max_hops): do orchestrators join each other in a circle?"
            )

    def allowed(self, submission: Submission, demand: Demand) -> Submission:
        """The submission of a caller with limits, as that one may have it: with its highest priority where that is
        below 0 and the task names none. Raises `Forbidden`."""
        limits = submission.caller.limits
        if limits.models:
            for model in (submission.model, *demand.models):
                if not limits.allows_model(model):
                    raise errors.Forbidden(f"this key is not for the model {model!r} (models)", param="model")
        highest = limits.max_priority
        if highest is None or submission.priority <= highest:
            return submission
        if submission.priority:
            raise errors.Forbidden(
                f"the highest priority of this key is {highest} (max_priority), the task has {submission.priority}",
                param="priority",
            )
        return msgspec.structs.replace(submission, priority=highest)

    def too_long(self, demand: Demand) -> AnywireError:
        """The error for a request for an answer that is longer than ``pipeline.max_tokens``."""
        return errors.InvalidRequest(
            f"the longest answer here has {self._config.max_tokens} tokens (pipeline.max_tokens), the request asks for "
            f"{demand.max_tokens}",
            param="max_tokens",
        )

    def share(self, submission: Submission, demand: Demand, parent: Share | None) -> Share:
        """Count a task for its caller, or for that of the task that made it. Raises `LimitReached`."""
        prompt = int(prompt_tokens(submission.kind, len(submission.outline or submission.body)))
        if parent is not None:
            return self._limits.take_child(parent, prompt, demand.max_tokens)
        return self._limits.take(submission.caller, prompt, demand.max_tokens)

    def keys(self, submission: Submission, demand: Demand) -> tuple[QueueKey, ...]:
        """What the task needs, for each model that would do and that somebody serves, served or will. Raises
        `ModelNotFound`, `ModelStopped` or `InvalidRequest` when there is none."""
        if not demand.models:
            only = QueueKey(submission.model, submission.kind, demand.needs)
            error = self.unknown(only, submission.caller)
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # it refers to this frame
            return (only,)
        named = (submission.model, *demand.models)
        keys = [QueueKey(model, submission.kind, demand.needs) for model in dict.fromkeys(named)]
        unknown = [self.unknown(key, submission.caller) for key in keys]
        known = tuple(key for key, error in zip(keys, unknown, strict=True) if error is None)
        if not known and unknown[0] is not None:
            try:
                raise unknown[0]
            finally:
                unknown.clear()  # it refers to this frame
        return known

    def unknown(self, key: QueueKey, caller: Caller) -> AnywireError | None:
        """The error for a model that is not served here and never was, or that would have to be started; None while
        somebody may yet come, or be well again. It names only models that ``caller`` may use."""
        serving = self._registry.serving
        if serving.serves(key) or self._registry.barred(key):
            return None
        is_expected = serving.is_expected(key.model)
        if serving.is_stopped(key.model) and not is_expected:
            return errors.ModelStopped(
                f"the model {key.model!r} is stopped and is not started by a request: start it at its agent, "
                f"with `anywire models start {key.model}`",
                param="model",
            )
        if key.needs and serving.serves(QueueKey(key.model, key.kind)):
            return self._lacks(key)
        if is_expected or serving.served_ever(key):
            return None
        agents = self._registry.agents()
        if not agents or any(agent.status.state == "starting" for agent in agents):
            return None
        models = self._registry.models()
        if key.model in models:
            return errors.InvalidRequest(f"model {key.model!r} does not do {key.kind} here", param="model")
        models = [model for model in models if caller.limits.allows_model(model)]
        shown = ", ".join(models[:20]) + (f" and {len(models) - 20} more" if len(models) > 20 else "") or "none"
        return errors.ModelNotFound(f"no agent serves the model {key.model!r}; models served: {shown}", param="model")

    def _lacks(self, key: QueueKey) -> AnywireError:
        """The error for needs that no agent with the model meets."""
        named = [need for need in key.needs if need.startswith(NAMED_NEED)]
        there = self._registry.serving.servers(key.model)
        if missing := [need for need in named if need not in there]:
            labels = ", ".join(repr(need.removeprefix(NAMED_NEED)) for need in missing)
            known = ", ".join(need.removeprefix(NAMED_NEED) for need in there[:20]) or "none"
            text = f"no agent with the model {key.model!r} has an MCP server {labels}; there are: {known}"
            return errors.InvalidRequest(text, param="tools")
        needs = [f"the MCP server {need.removeprefix(NAMED_NEED)!r}" if need in named else need for need in key.needs]
        text = f"no agent whose model {key.model!r} has {' and '.join(needs)} is here"
        return errors.InvalidRequest(text, param="model")
