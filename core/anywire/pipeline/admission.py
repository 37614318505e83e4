"""What a task must pass before it is queued: everything that can be refused at once."""

from __future__ import annotations

from anywire import errors
from anywire.errors import AnywireError
from anywire.pipeline.config import PipelineConfig
from anywire.pipeline.registry import Registry
from anywire.scheduler import QueueKey
from anywire.submission import Submission


class Admission:
    """Open until `close`."""

    def __init__(self, config: PipelineConfig, registry: Registry) -> None:
        self._config, self._registry = config, registry
        self.closed = False

    def check(self, submission: Submission, key: QueueKey) -> None:
        """Raises `ShuttingDown`, `PayloadTooLarge`, `ConfigError`, `ModelNotFound` or `InvalidRequest`."""
        if self.closed:
            raise errors.ShuttingDown("the orchestrator is shutting down")
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
        unknown = self.unknown(key)
        if unknown is not None:
            raise unknown

    def unknown(self, key: QueueKey) -> AnywireError | None:
        """The error for a model that is not served here and never was; None while somebody may yet come."""
        if self._registry.serving.served_ever(key):
            return None
        agents = self._registry.agents()
        if not agents or any(agent.status.state == "starting" for agent in agents):
            return None
        models = self._registry.models()
        if key.model in models:
            return errors.InvalidRequest(f"model {key.model!r} does not do {key.kind} here", param="model")
        shown = ", ".join(models[:20]) + (f" and {len(models) - 20} more" if len(models) > 20 else "") or "none"
        return errors.ModelNotFound(f"no agent serves the model {key.model!r}; models served: {shown}", param="model")
