"""The plan of an experiment: one YAML file that says all of it beforehand, hypotheses included.

    name: transports
    question: What does the transport add to one client's latency?
    seed: 7
    blocks: 16
    system:                       # any key of an anywire config
      selector: round_robin
      engine: {name: synthetic, itl: 10}
    agents: 2
    factors:
      transport: [dds, zeromq, {tls: {http: {token: secret}}}]
    compare: transport
    baseline: zeromq
    margin: 0.10
    workloads:
      one-client: {requests: 500, max_tokens: 1}
      streams: {stream: true, arrivals: {kind: closed, clients: 32}, seconds: 2}

A factor is named for what it changes: ``transport``, ``selector``, ``scheduler``, ``engine``, ``launcher``, ``agents``,
``network`` are short for the usual keys, ``fault`` strikes in every workload (a kind of fault, ``none``, or the
members of a workload's ``fault``), anything else is a key of the config with dots (``pipeline.max_attempts``).
The levels of ``request`` are members of the chat requests that clients send, those of ``request.model`` one of them;
those of ``system`` are whole systems, Anywire or another one (`anywire_experiment.plan.systems`). A
level is a value, or ``{label: value}``. Every combination of levels is an *arm*. In every *block* each arm's system is
started afresh, in an order drawn from the seed, and runs every workload once, these in an order of their own; that pair
of block and arm is a *cell*. Orders are balanced over the blocks (`anywire_experiment.plan.orders`). Arms are compared
block by block.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from anywire_experiment.plan.companions import Companion, is_reserved, reserved
from anywire_experiment.plan.fault_kinds import StandInServers
from anywire_experiment.plan.levels import Levels, Name, number_as_name
from anywire_experiment.plan.metric import OF_REQUESTS, Metric, fewest_samples
from anywire_experiment.plan.network import Network
from anywire_experiment.plan.objective import Objective
from anywire_experiment.plan.section import Positive, Section
from anywire_experiment.plan.workload import Trace, Workload


class Cpus(Section):
    """Which cores the load generator and the system run on. ``auto`` keeps them apart where there are two cores or
    more: the last quarter, at least one, is the generator's."""

    load: list[int] | Literal["auto", "any"] = "auto"
    system: list[int] | Literal["auto", "any"] = "auto"


class Plan(Section):
    """An experiment, completely."""

    name: Name
    question: str = pydantic.Field("", description="what it is to answer, for the report")
    seed: int = pydantic.Field(1, description="of the orders, the arrivals, the prompts and the resampling")
    blocks: int = pydantic.Field(16, ge=1, le=1000, description="repetitions; fewer than 16 give no verdict")
    system: dict[str, Any] = pydantic.Field(
        default_factory=dict,
        description="the anywire config of every arm; relative files in `plugins` start at the plan's folder",
    )
    agents: int = pydantic.Field(1, ge=1, le=200, description="agent processes")
    companions: dict[Name, Companion] = pydantic.Field(
        default_factory=dict, description="processes that arms need beside orchestrator and agents, such as a broker"
    )
    factors: dict[str, Levels] = pydantic.Field(default_factory=dict, description="what differs between arms")
    compare: str = pydantic.Field("", description="the factor whose levels are compared; empty: the first")
    baseline: Annotated[str, pydantic.BeforeValidator(number_as_name)] = pydantic.Field(
        "", description="the level the others are compared with; empty: the first"
    )
    network: Network | None = None
    stand_in: StandInServers | None = pydantic.Field(
        None,
        description="servers with OpenAI's API in the place of models, one behind each agent with the engine `openai`; "
        "faults of a server need them; empty: none",
    )
    workloads: dict[Name, Workload] = pydantic.Field(min_length=1)
    objective: Objective | None = pydantic.Field(
        None,
        description="what an answer must hold to count for goodput and attainment: {ttft: 500 ms, itl: 50 ms, latency: "
        "2 s}; empty: its deadline alone",
    )
    metrics: tuple[Metric, ...] = pydantic.Field(
        (),
        description="what is judged; empty: latency, and ttft and itl of streams, throughput of closed loops, "
        "notice, recovery and failures of faults, attainment where there is an objective",
    )
    statistic: Literal["median", "mean", "p90", "p95", "p99"] = "median"
    margin: float = pydantic.Field(0.10, gt=0, lt=1, description="ratio below which a difference does not matter")
    share_margin: float = pydantic.Field(
        0.05, gt=0, lt=1, description="difference of shares (`quality`) that does not matter, 0.05 for 5 points"
    )
    confidence: float = pydantic.Field(0.95, gt=0.5, lt=1)
    max_lateness: float = pydantic.Field(
        0.10,
        gt=0,
        allow_inf_nan=False,
        description="how late the load generator may send, as a share of an arm's latency, both by the plan's "
        "statistic; above it latency and ttft are not judged",
    )
    cpus: Cpus = Cpus()
    energy: tuple[str, ...] = pydantic.Field(
        (), description="parts of the machine whose energy is counted, such as `gpu 0`; empty: all that tell it"
    )
    ready_timeout: Positive = pydantic.Field(60.0, description="seconds an arm gets until it answers")

    @pydantic.model_validator(mode="after")
    def _names_what_there_is(self) -> Plan:
        if self.compare and self.compare not in self.factors:
            known = ", ".join(self.factors) or "none"
            raise ValueError(f"compare: there is no factor {self.compare!r}; there are: {known}")
        if self.baseline:
            labels = [each.label for each in self.factors[self.compared]] if self.factors else []
            if self.baseline not in labels:
                raise ValueError(f"baseline: {self.baseline!r} is no level of {self.compared!r}: {', '.join(labels)}")
        if "attainment" in self.metrics and self.objective is None:
            raise ValueError("metrics: attainment is the share that holds the plan's `objective`: give one")
        return self

    @pydantic.model_validator(mode="after")
    def _companions_have_names_and_arms(self) -> Plan:
        for name, each in self.companions.items():
            if is_reserved(name):
                raise ValueError(f"companions: {reserved(name)}")
            for factor, wanted in each.arms.items():
                labels = [level.label for level in self.factors.get(factor, ())]
                if missing := [level for level in wanted if level not in labels]:
                    known = ", ".join(labels) or "there is no such factor"
                    raise ValueError(f"companions.{name}.arms.{factor}: no level {missing[0]!r}; there are: {known}")
        return self

    @property
    def compared(self) -> str:
        """The factor whose levels are compared; empty when there is none."""
        return self.compare or next(iter(self.factors), "")

    @property
    def base_level(self) -> str:
        """The level the others are compared with."""
        return self.baseline or (self.factors[self.compared][0].label if self.factors else "")

    @property
    def fewest_answers(self) -> int:
        """Whole answers a workload needs in a block to be judged as the plan wants it."""
        judged = not self.metrics or OF_REQUESTS.intersection(self.metrics)
        return fewest_samples(self.statistic) if judged else 0

    def has_too_few_requests(self, workload: str) -> bool:
        """Whether that workload cannot have that many."""
        requests = self.workloads[workload].requests
        return requests is not None and requests < self.fewest_answers

    def too_few_requests(self) -> list[str]:
        """The workloads that cannot have that many, a sentence each."""
        return [
            f"workload {name!r} has {each.requests} requests, and a block needs {self.fewest_answers} whole answers "
            f"for its {self.statistic} to count: raise `requests`"
            for name, each in self.workloads.items()
            if self.has_too_few_requests(name)
        ]

    def repeated_traces(self) -> list[str]:
        """The workloads of which several blocks replay the same trace, a sentence each."""
        return [
            f"workload {name!r} replays {'one trace' if parts == 1 else f'{parts} traces'} in {self.blocks} blocks, "
            "which are repeats of the same work: its verdicts hold for that alone; give more files (`further`) or a "
            "window that moves (`window.step`)"
            for name, each in self.workloads.items()
            if isinstance(each.arrivals, Trace) and (parts := each.arrivals.parts(self.blocks)) < self.blocks
        ]
