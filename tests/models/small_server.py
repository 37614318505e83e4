"""A server that a launcher starts in tests: `python -I -S small_server.py port=8080 NAME=VALUE …`; up in milliseconds.

``loading=3`` answers the first three questions with 503, ``loading=-1`` all. ``deaf=1`` never listens, ``mute=1``
listens and never answers, ``babbles=1`` answers with what is no HTTP. ``says=text``
is written, ``exits=3`` ends it then. ``stubborn=1`` passes over SIGTERM. ``child=1`` starts a process that holds the
streams and has left the group, ``grandchild=1`` one in the group. ``flood=1`` writes without end once it is ready.
``writes=PATH`` writes a file that is larger than the process may write. ``tells=A,B`` writes these environment
variables. ``maps=PATH`` has half of a file in memory. ``shared=1`` keeps shared memory. ``dots=50`` writes dots as
llama.cpp does while it loads.
"""

import os
import signal
import socket
import sys
import time

kept_open: list[object] = []
options = dict(each.split("=", 1) for each in sys.argv[1:])


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def start_child(leaves_the_group: bool) -> None:
    pid = os.fork()
    if pid:
        say(f"child {pid}")
        return
    if leaves_the_group:
        os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(600)


def serve() -> None:
    loading = int(options.get("loading", "0"))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(options["port"])))
        listener.listen(64)
        say("listening")
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                if "mute" in options:
                    kept_open.append(connection.dup())
                    continue
                if "babbles" in options:
                    connection.sendall(b"\x00\xff" * 1000)
                    continue
                status = "200 OK" if loading == 0 else "503 Loading"
                loading -= loading > 0
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".encode())
            if "flood" in options and loading == 0:
                while True:
                    os.write(1, b"".join(b"line %d of a flood\n" % number for number in range(1000)))


def main() -> None:
    if "stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for name in filter(None, options.get("tells", "").split(",")):
        say(f"{name}={os.environ.get(name, '')}")
    if "says" in options:
        say(options["says"])
    if "child" in options:
        start_child(True)
    if "grandchild" in options:
        start_child(False)
    if "shared" in options:
        from multiprocessing import shared_memory

        kept = shared_memory.SharedMemory(create=True, size=4096)
        say(f"shared {kept.name}")
    if "maps" in options:
        import mmap

        with open(options["maps"], "rb") as file:  # noqa: PTH123 - quick to import
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        for position in range(0, len(mapped) // 2, mmap.PAGESIZE):
            mapped[position]
        kept_open.append(mapped)
    if "writes" in options:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        with open(options["writes"], "wb") as file:  # noqa: PTH123 - quick to import
            file.write(bytes(4096))
    for _ in range(int(options.get("dots", "0"))):
        os.write(2, b".")
    if "exits" in options:
        sys.exit(int(options["exits"]))
    if "deaf" in options:
        while True:
            time.sleep(600)
    serve()


if __name__ == "__main__":
    main()
