"""Which tasks are answered by other weights than were offered when they came: no text is made of two."""

from __future__ import annotations

from anywire.errors import EngineFailed
from anywire.messages import TaskRequest

_Key = tuple[str, str, int]


class OfferedWeights:
    """Keeps the tasks under way of which that is so."""

    def __init__(self) -> None:
        self._others: set[_Key] = set()

    def compare(self, task: TaskRequest, digest: str, offered: str) -> None:
        """The weights ``digest`` answer ``task``; ``offered`` is what was offered as it came. Raises `EngineFailed` for
        a text that others have begun."""
        self.forget(task)
        if digest == offered:
            return
        if task.resume:
            raise EngineFailed(f"the weights of {task.model} have changed: it cannot go on from the text of others")
        if offered:
            self._others.add(_key(task))

    def can_be_resumed(self, task: TaskRequest) -> bool:
        """Whether others may go on from the text of ``task`` by the digest that was offered."""
        return _key(task) not in self._others

    def forget(self, task: TaskRequest) -> None:
        self._others.discard(_key(task))


def _key(task: TaskRequest) -> _Key:
    return task.hub_id, task.task_id, task.attempt
