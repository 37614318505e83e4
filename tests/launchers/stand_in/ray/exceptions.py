from __future__ import annotations


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class ActorDiedError(RayActorError):
    pass


class ActorUnavailableError(RayActorError):
    def __init__(self, error_message: str, actor_id: bytes | None) -> None:
        super().__init__(f"The actor 1234 is unavailable: {error_message}. The task may or may not have been executed.")
