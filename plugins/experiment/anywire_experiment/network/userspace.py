"""The link in user space: carries Ethernet frames between two TAP devices, each in a network namespace of its own.

``python -m anywire_experiment.network.userspace NETWORK_JSON SEED TAP_A TAP_B`` makes the devices, says
``{"event": "ready"}`` and carries frames until its standard input ends; they are then gone. ``cut`` on that input
stops it, ``cut-to-a`` and ``cut-to-b`` only the way to that device, ``lose 0.05`` loses that share of the frames, and
``restore`` resumes it as it was. Frames that were under way when it was cut are lost. ``lost`` asks how many frames
were lost so far: ``{"event": "lost", "frames": 12}``. The others are answered ``{"event": "done"}`` once it is so.
"""

from __future__ import annotations

import os
import selectors
import struct
import sys
import time
from collections import deque

from anywire_experiment.load import timerfd
from anywire_experiment.network.shaping import Direction
from anywire_experiment.plan.network import Network

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME = 65_536
BATCH = 64
"""Frames read from one device before the other has its turn."""


def open_tap(name: str) -> int:
    """A TAP device, which lives as long as the descriptor. Raises OSError."""
    import fcntl  # of Linux, as the devices are

    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


class _Timer:
    def __init__(self) -> None:
        self.descriptor = timerfd.create()
        self._at = 0

    def set(self, at_ns: int) -> None:
        if at_ns != self._at:
            self._at = at_ns
            timerfd.arm(self.descriptor, at_ns)


class _Way:
    """Frames from one device to the other."""

    def __init__(self, source: int, target: int, direction: Direction) -> None:
        self._source, self._target, self.direction = source, target, direction
        self._under_way: deque[tuple[int, bytes]] = deque()
        self._cut = False
        self.lost = 0

    def read(self) -> None:
        for _ in range(BATCH):
            try:
                frame = os.read(self._source, FRAME)
            except BlockingIOError:
                return
            leaves = None if self._cut else self.direction.leaves(time.monotonic_ns(), len(frame))
            if leaves is None:
                self.lost += 1
            else:
                self._under_way.append((leaves, frame))

    def write(self) -> int:
        """Write what is due; when the next one is, 0 for none."""
        while self._under_way:
            due, frame = self._under_way[0]
            if due > time.monotonic_ns():
                return due
            self._under_way.popleft()
            try:
                os.write(self._target, frame)
            except OSError:
                # The device is down or its queue is full: a frame is lost, as on any wire.
                continue
        return 0

    def cut(self, cut: bool) -> None:
        self._cut = cut
        if cut:
            self.lost += len(self._under_way)
            self._under_way.clear()


def main() -> None:
    network, seed = Network.model_validate_json(sys.argv[1]), int(sys.argv[2])
    taps = [open_tap(name) for name in sys.argv[3:5]]
    ways = [
        _Way(taps[0], taps[1], Direction(network, 2 * seed)),
        _Way(taps[1], taps[0], Direction(network, 2 * seed + 1)),
    ]
    timer = _Timer()
    with selectors.DefaultSelector() as selector:
        for way, tap in zip(ways, taps, strict=True):
            selector.register(tap, selectors.EVENT_READ, way)
        selector.register(timer.descriptor, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        print('{"event": "ready"}', flush=True)
        while True:
            for key, _ in selector.select():
                if isinstance(key.data, _Way):
                    key.data.read()
                elif key.fd == timer.descriptor:
                    os.read(key.fd, 8)
                else:
                    told = os.read(0, 4096).split()
                    if not told:
                        return
                    if told[0] == b"lost":
                        print(f'{{"event": "lost", "frames": {sum(way.lost for way in ways)}}}', flush=True)
                        continue
                    loss = float(told[-1]) if told[0] == b"lose" else network.loss
                    for way, alone in zip(ways, (b"cut-to-b", b"cut-to-a"), strict=True):
                        way.cut(told[-1] in (b"cut", alone))
                        way.direction.loss = loss
                    print('{"event": "done"}', flush=True)
            if due := [at for way in ways if (at := way.write())]:
                timer.set(min(due))


if __name__ == "__main__":
    main()
