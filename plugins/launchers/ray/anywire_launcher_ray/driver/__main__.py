"""``python -m anywire_launcher_ray.driver``: see `anywire_launcher_ray.messages` for what is said on standard input and
output. It ends at the end of standard input, after it has stopped its agents."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from anywire_launcher_ray.driver.pipe import Pipe
from anywire_launcher_ray.messages import Connect, Failed, order, shortened


def main() -> int:
    pipe = Pipe()
    try:
        connect = order(pipe.first_line())
    except (msgspec.DecodeError, msgspec.ValidationError):
        connect = None
    if not isinstance(connect, Connect):
        print("this is for processes that the launcher ray starts: its first order is missing", file=sys.stderr)
        return 2
    try:
        # Ray reads its environment when it is imported.
        from anywire_launcher_ray.driver.cluster import Cluster

        cluster = Cluster(connect)
    except Exception as error:
        pipe.tell(Failed(shortened(str(error) or type(error).__name__)))
        return 1
    try:
        from anywire_launcher_ray.driver.service import serve

        pipe.tell(cluster.connected())
        asyncio.run(serve(pipe))
    finally:
        cluster.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
