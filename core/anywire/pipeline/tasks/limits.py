"""What each caller has used of its limits (`anywire.caller.Limits`): requests of the last minute, tasks that have not
ended, tokens of the day.

Counted by the caller's id. A task is counted when it is taken in; its tokens are counted when it ends, and before that
what it may still use is reserved. Everything is counted on the event loop, in the call that takes the task in, so that
no number of clients gets past a limit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from anywire.caller import Caller, Limits
from anywire.clock import Clock
from anywire.demand import MAX_TOKENS
from anywire.errors import LimitReached

WINDOW = 60.0
"""Seconds that ``requests_per_minute`` looks back."""
DAY = 86_400
RETRY_AFTER = 1.0
"""Seconds that are told where room comes with the end of a task, which nobody can foretell."""


class Account:
    """One caller's counts. ``requests`` are the times of those taken in during the last minute, ``used`` the tokens of
    the day, ``unsaved`` those of them that `CallerLimits.take_unsaved` has not given yet, ``reserved`` what running
    tasks may still use."""

    __slots__ = ("caller_id", "requests", "reserved", "running", "unsaved", "used")

    def __init__(self, caller_id: str) -> None:
        self.caller_id = caller_id
        self.running = self.used = self.unsaved = self.reserved = 0
        self.requests: deque[float] = deque()


class Share(msgspec.Struct, gc=False):
    """What one task takes of its caller's limits, from `CallerLimits.take` to `CallerLimits.end`.

    ``prompt`` is the estimate of its prompt's tokens, ``reserved`` how many it may use, ``is_counted`` whether it
    counts as a request and as a running task. ``below`` are the tokens that tasks made by this one have used.
    """

    account: Account
    limits: Limits
    prompt: int
    reserved: int
    is_counted: bool
    parent: Share | None
    below: int = 0


class CallerLimits:
    """``wall`` gives seconds since 1970: a day is one of UTC."""

    def __init__(self, clock: Clock, wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall = clock, wall
        self._accounts: dict[str, Account] = {}
        self._day = int(wall() // DAY)
        self._begins, self._ends = float(self._day * DAY), float((self._day + 1) * DAY)
        self.refused = 0
        """How many tasks a limit has refused."""
        self.spent: Callable[[], None] = lambda: None
        """Called when tokens were used that `take_unsaved` has not given yet."""

    def take(self, caller: Caller, prompt: int, max_tokens: int) -> Share:
        """Count a task that is taken in: ``prompt`` is the estimate of its prompt's tokens, ``max_tokens`` the longest
        answer it asks for, 0 when it does not say. Raises `LimitReached`, and counts nothing then."""
        limits = caller.limits
        account = self._accounts.get(caller.id) or self._account(caller.id)
        if limits.concurrency and account.running >= limits.concurrency:
            raise self._reached(
                f"the limit of this key is {limits.concurrency} tasks at once (concurrency), and so many have not "
                "ended; it is free again when one of them ends",
                RETRY_AFTER,
            )
        # A new day may have begun, and gives more and not less: it need be looked for only where a budget is used up.
        if limits.tokens_per_day and account.used + account.reserved >= limits.tokens_per_day:
            self._check_tokens(account, limits.tokens_per_day)
        if limits.requests_per_minute:
            now, requests = self._clock.now(), account.requests
            while requests and requests[0] <= now - WINDOW:
                requests.popleft()
            if len(requests) >= limits.requests_per_minute:
                raise self._too_many(requests, limits.requests_per_minute, now)
            requests.append(now)
        reserved = prompt + max_tokens
        account.running += 1
        account.reserved += reserved
        return Share(account, limits, prompt, reserved, True, None)

    def take_child(self, parent: Share, prompt: int, max_tokens: int) -> Share:
        """Count a task that the task of ``parent`` makes: its tokens count for the same caller, and nothing else does.
        Raises `LimitReached`."""
        account, limits, reserved = parent.account, parent.limits, prompt + max_tokens
        if limits.tokens_per_day:
            self._check_tokens(account, limits.tokens_per_day)
        account.reserved += reserved
        return Share(account, limits, prompt, reserved, False, parent)

    def give_back(self, share: Share) -> None:
        """Undo `take`: the task was not taken in after all."""
        share.account.reserved -= share.reserved
        share.account.running -= share.is_counted
        if share.is_counted and share.account.requests and share.limits.requests_per_minute:
            share.account.requests.pop()

    def end(self, share: Share, tokens: int) -> None:
        """Count the end of a task that has used ``tokens``, those of the tasks it has made included if it says so."""
        account, below = share.account, share.below
        account.reserved -= share.reserved
        account.running -= share.is_counted
        if tokens > below:
            share.below = max(below, min(tokens, MAX_TOKENS))
        if share.parent is not None:
            share.parent.below += share.below
        own = share.below - below
        if own > 0 and share.limits.tokens_per_day:
            self._turn_day()
            account.used += own
            account.unsaved += own
            self.spent()

    # What survives a restart

    @property
    def day(self) -> int:
        """Days since 1970-01-01 UTC."""
        self._turn_day()
        return self._day

    @property
    def has_unsaved(self) -> bool:
        return any(account.unsaved for account in self._accounts.values())

    def take_unsaved(self) -> tuple[int, dict[str, int], dict[str, int]]:
        """The day (since 1970), the tokens that each caller has used in it since the last call, and those that it had
        used before. What is given is saved, or given back by `keep_unsaved`."""
        self._turn_day()
        spent: dict[str, int] = {}
        before: dict[str, int] = {}
        for account in self._accounts.values():
            if account.unsaved:
                spent[account.caller_id], account.unsaved = account.unsaved, 0
                before[account.caller_id] = account.used - spent[account.caller_id]
        return self._day, spent, before

    def keep_unsaved(self, day: int, spent: Mapping[str, int]) -> None:
        """What `take_unsaved` gave could not be saved: it gives that again."""
        if day == self.day:
            for caller_id, tokens in spent.items():
                self._account(caller_id).unsaved += tokens

    def know_used(self, day: int, used: Mapping[str, int]) -> None:
        """The tokens that callers have used on that day, as they were saved, by this orchestrator and by others."""
        if day == self.day:
            for caller_id, tokens in used.items():
                account = self._account(caller_id)
                account.used = max(account.used, tokens + account.unsaved)

    # Inside

    def _account(self, caller_id: str) -> Account:
        account = self._accounts.get(caller_id)
        if account is None:
            account = self._accounts[caller_id] = Account(caller_id)
        return account

    def _too_many(self, requests: deque[float], limit: int, now: float) -> LimitReached:
        wait = requests[len(requests) - limit] + WINDOW - now
        return self._reached(
            f"the limit of this key is {limit} requests per minute (requests_per_minute); it is free again in "
            f"{wait:.1f} s",
            wait,
        )

    def _check_tokens(self, account: Account, budget: int) -> None:
        self._turn_day()
        used = account.used
        if used + account.reserved < budget:
            return
        told = f"the limit of this key is {budget} tokens per day (tokens_per_day), and {used} are used"
        if used < budget:
            raise self._reached(
                f"{told}; tasks that have not ended may use {account.reserved}: it is free again when one of them ends",
                RETRY_AFTER,
            )
        date = time.strftime("%Y-%m-%d", time.gmtime(self._ends))
        wait = max(RETRY_AFTER, self._ends - self._wall())
        raise self._reached(f"{told}; it is free again at {date} 00:00 UTC", wait)

    def _reached(self, message: str, retry_after: float) -> LimitReached:
        self.refused += 1
        return LimitReached(message, retry_after=retry_after)

    def _turn_day(self) -> None:
        """Begin a new day when it has come: nobody has used any of it, and who does nothing is forgotten."""
        wall = self._wall()
        if self._begins <= wall < self._ends:
            return
        self._day = int(wall // DAY)
        self._begins, self._ends = float(self._day * DAY), float((self._day + 1) * DAY)
        now = self._clock.now()
        for account in list(self._accounts.values()):
            account.used = account.unsaved = 0
            idle = not account.requests or account.requests[-1] <= now - WINDOW
            if idle and not account.running and not account.reserved:
                del self._accounts[account.caller_id]
