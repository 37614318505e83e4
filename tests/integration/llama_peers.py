"""Peers of the llama.cpp DDS service as others write them: plain Cyclone DDS, nothing of Anywire.

``client DOMAIN [PAUSE]`` writes the requests that come as JSON lines on stdin, and prints every response it takes. With
PAUSE it looks into its reader every so many seconds only. At the line ``"found"`` it waits for a server.

``server DOMAIN ID MODEL SLOTS [INTERVAL [PAUSE]]`` does what the last message says: ``say TEXT``, ``count N SECONDS``
(N numbers with a pause between), ``cut TEXT`` (finish reason length), ``fail TEXT`` (finish reason error), ``hang``,
``mute TEXT`` (no status from now on), ``bytes HEX HEX`` (a response for each). With INTERVAL it tells its status every
so many seconds, the first after the first of them, as existing servers do; 0 is often, and at once. With PAUSE it
looks into its reader every so many seconds only.

Both end with their stdin.
"""

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from cyclonedds._clayer import ddspy_write
from cyclonedds.core import InstanceState, Policy, Qos, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import float32, int32, sequence
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration


@dataclass
@final
class ChatMessage(IdlStruct, typename="llama.ChatMessage"):  # type: ignore[misc,call-arg]
    role: str
    content: str


@dataclass
@final
class ChatCompletionRequest(IdlStruct, typename="llama.ChatCompletionRequest"):  # type: ignore[misc,call-arg]
    request_id: str
    model: str
    messages: sequence[ChatMessage]
    temperature: float32
    max_tokens: int32
    stream: bool
    top_p: sequence[float32]
    n: sequence[int32]
    stop: sequence[str]


@dataclass
@final
class ChatCompletionResponse(IdlStruct, typename="llama.ChatCompletionResponse"):  # type: ignore[misc,call-arg]
    request_id: str
    model: str
    content: str
    finish_reason: str
    is_final: bool
    prompt_tokens: int32
    completion_tokens: int32


@dataclass
@final
class ServerStatus(IdlStruct, typename="llama.ServerStatus"):  # type: ignore[misc,call-arg]
    server_id: str
    slots_idle: int32
    slots_processing: int32
    model_loaded: str
    ready: bool


CHAT = Qos(
    Policy.Reliability.Reliable(duration(seconds=10)),
    Policy.Durability.TransientLocal,
    Policy.History.KeepLast(8),
)
STATUS = Qos(
    Policy.Reliability.BestEffort,
    Policy.Durability.Volatile,
    Policy.History.KeepLast(1),
    Policy.Deadline(duration(seconds=2)),
    Policy.Liveliness.Automatic(duration(seconds=1)),
)
_printing = threading.Lock()


def say(**what: Any) -> None:
    with _printing:
        print(json.dumps(what), flush=True)


def new_samples(participant: Any, reader: Any) -> Any:
    """Every sample as it comes."""
    waiting = WaitSet(participant)
    waiting.attach(ReadCondition(reader, SampleState.Any | ViewState.Any | InstanceState.Any))
    while True:
        waiting.wait(duration(seconds=3600))
        yield from (each for each in reader.take(32) if hasattr(each, "request_id") or hasattr(each, "server_id"))


def leave(participant: DomainParticipant) -> NoReturn:
    """Say goodbye and end, whatever the threads do."""
    threading.excepthook = lambda _: None
    participant.__del__()
    os._exit(0)


def polled(reader: Any, pause: float) -> Any:
    """The same, looked for every ``pause`` seconds: what the reader's history loses meanwhile is lost."""
    while True:
        time.sleep(pause)
        yield from (each for each in reader.take(32) if hasattr(each, "request_id"))


def client(domain: int, pause: float) -> None:
    participant = DomainParticipant(domain)
    writer = DataWriter(
        participant, Topic(participant, "llama_chat_completion_request", ChatCompletionRequest), qos=CHAT
    )
    reader = DataReader(
        participant, Topic(participant, "llama_chat_completion_response", ChatCompletionResponse), qos=CHAT
    )
    status = DataReader(participant, Topic(participant, "llama_server_status", ServerStatus), qos=STATUS)

    def read() -> None:
        for response in polled(reader, pause) if pause else new_samples(participant, reader):
            say(**asdict(response))

    def observe() -> None:
        for sample in new_samples(participant, status):
            say(**asdict(sample))

    for each in (read, observe):
        threading.Thread(target=each, daemon=True).start()
    for line in sys.stdin:
        asked = json.loads(line)
        if asked == "found":
            while not (writer.get_matched_subscriptions() and reader.get_matched_publications()):
                time.sleep(0.01)
            say(found=True)
            continue
        asked["messages"] = [ChatMessage(**each) for each in asked["messages"]]
        written_ns = time.time_ns() - int(asked.pop("age", 0) * 1e9)
        writer.write(ChatCompletionRequest(**asked), written_ns)
        say(wrote=asked["request_id"])
    leave(participant)


class Server:
    def __init__(
        self, domain: int, server_id: str, model: str, slots: int, interval: float, pause: float, late: float
    ) -> None:
        self.interval, self.pause, self.late, self.muted = interval, pause, late, False
        self.server_id, self.model, self.slots, self.busy = server_id, model, slots, 0
        self.participant = DomainParticipant(domain)
        self.writing = threading.Lock()
        if not late:
            self.open_responses()
        self.reader = DataReader(
            self.participant, Topic(self.participant, "llama_chat_completion_request", ChatCompletionRequest), qos=CHAT
        )
        self.statuses = DataWriter(
            self.participant, Topic(self.participant, "llama_server_status", ServerStatus), qos=STATUS
        )

    def open_responses(self) -> None:
        self.responses = DataWriter(
            self.participant,
            Topic(self.participant, "llama_chat_completion_response", ChatCompletionResponse),
            qos=CHAT,
        )

    def serve(self) -> None:
        threading.Thread(target=self.tell, daemon=True).start()
        if self.late:
            time.sleep(self.late)
            self.open_responses()
        reader = self.reader
        for request in polled(reader, self.pause) if self.pause else new_samples(self.participant, reader):
            say(**asdict(request))
            threading.Thread(target=self.answer, args=(request,), daemon=True).start()

    def tell(self) -> None:
        time.sleep(self.interval)
        while not self.muted:
            self.status()
            time.sleep(self.interval or 0.2)

    def status(self) -> None:
        self.statuses.write(ServerStatus(self.server_id, self.slots - self.busy, self.busy, self.model, True))

    def answer(self, request: Any) -> None:
        with self.writing:
            self.busy += 1
        what, _, rest = request.messages[-1].content.partition(" ")
        if what == "hang":
            return
        if what == "bytes":
            self.respond_bytes(request.request_id, [bytes.fromhex(each) for each in rest.split()])
            return
        if what == "mute":
            self.muted = True
        texts, pause = [rest], 0.0
        if what == "count":
            count, seconds = rest.split()
            texts, pause = [f"{number} " for number in range(int(count))], float(seconds)
        elif request.stream and what != "fail":
            texts = [each + " " for each in rest.split(" ")]
            texts[-1] = texts[-1][:-1]
        reason = {"cut": "length", "fail": "error"}.get(what, "stop")
        if not request.stream:
            texts = ["".join(texts)]
        for text in texts[:-1]:
            self.respond(ChatCompletionResponse(request.request_id, self.model, text, "", False, 0, 0))
            time.sleep(pause)
        with self.writing:
            self.busy -= 1
        self.respond(ChatCompletionResponse(request.request_id, self.model, texts[-1], reason, True, 5, len(texts)))

    def respond_bytes(self, request_id: str, contents: list[bytes]) -> None:
        """Responses whose contents need be no text, as C++ writes them."""
        for number, content in enumerate(contents):
            final = number == len(contents) - 1
            mark = "#" * len(content)
            sample = ChatCompletionResponse(request_id, self.model, mark, "stop" if final else "", final, 1, number + 1)
            data = sample.serialize().replace(mark.encode(), content)
            with self.writing:
                ddspy_write(self.responses._ref, data.ljust(len(data) + 3 & ~3, b"\0"))
        with self.writing:
            self.busy -= 1

    def respond(self, response: ChatCompletionResponse) -> None:
        with self.writing:
            self.responses.write(response)


if __name__ == "__main__":
    role, number, *more = sys.argv[1:]
    if role == "client":
        client(int(number), float(more[0]) if more else 0.0)
    else:
        times = [float(each) for each in more[3:]] + [0.0, 0.0, 0.0]
        server = Server(int(number), more[0], more[1], int(more[2]), *times[:3])
        threading.Thread(target=server.serve, daemon=True).start()
        sys.stdin.read()
        leave(server.participant)
