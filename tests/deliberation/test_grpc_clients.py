"""Clients that have nothing of this project: code made of the contract in a process of its own, and reflection. And the
contract itself."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deliberation.deliberation_bench import Council, ended
from tests.deliberation.grpc_bench import EXECUTOR, ORCHESTRATOR, channel_to, question, serving
from tests.integration.test_docs import DOCS, Reader
from tests.long_form import examples

import anywire_gateway_grpc
from anywire.testing.patience import PATIENCE, expect
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc import ray_executor_pb2 as executor
from anywire_gateway_grpc.admission import is_local
from anywire_gateway_grpc.questions import criteria
from anywire_gateway_grpc.results import checks
from anywire_service_deliberation.record import Check
from anywire_service_deliberation.roles_and_rubrics import described_rubric, spoken
from reserved import free_port

SOURCES = Path(anywire_gateway_grpc.__file__).parent
NAMES = ("orchestrator", "ray_executor")

STRANGER = """
import sys
sys.path.insert(0, {folder!r})
import grpc, orchestrator_pb2 as pb, orchestrator_pb2_grpc as rpc

metadata = (("x-anywire-tenant", "lab"),)
with grpc.insecure_channel({target!r}, [("grpc.enable_http_proxy", 0)]) as channel:
    stub = rpc.OrchestratorServiceStub(channel)
    call = dict(metadata=metadata, timeout={patience})
    stub.CreateCouncil(pb.CreateCouncilRequest(role="DEV", num_agents=3), **call)
    rubric = pb.TaskConstraints(rubric="clarity\\ntruth")
    asked = pb.DeliberateRequest(task_id="q-1", task_description="Reverse a list.", role="DEV", constraints=rubric)
    for update in stub.StreamDeliberation(asked, **call):
        print(update.status, update.progress_percent)
    answer = stub.Deliberate(asked, **call)
    found = stub.GetDeliberationResult(pb.GetDeliberationResultRequest(task_id="q-1"), **call)
    assert found.status == pb.DELIBERATION_STATUS_COMPLETED
    assert list(found.results) == list(answer.results)
    print("winner", answer.winner_id)
    print("deleted", stub.DeleteCouncil(pb.DeleteCouncilRequest(role="DEV"), **call).success)
"""


async def test_a_client_made_of_the_contract_in_a_process_of_its_own(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="missing: the package grpcio-tools")
    made = tmp_path / "made"
    made.mkdir()
    arguments = [f"-I{SOURCES}", f"--python_out={made}", f"--grpc_python_out={made}", "orchestrator.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    async with serving(tmp_path) as (_, kept, gateway):
        target = gateway.address.partition("://")[2]
        script = STRANGER.format(folder=str(made), target=target, patience=PATIENCE)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await expect(process.communicate(), "the client has ended")
        lines = output.decode().splitlines()
        assert process.returncode == 0, lines
        state = await ended(kept)
        assert lines[0] == "generating 0"
        assert lines[-3:] == ["complete 100", f"winner {state.winner}", "deleted True"]
        assert [member.name for member in state.question.members] == [f"agent-dev-{number:03}" for number in (1, 2, 3)]


async def test_a_client_that_knows_nothing_asks_by_reflection(tmp_path: Path) -> None:
    def ask(target: str, service: str) -> tuple[list[str], Any]:
        with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = descriptor_pool.DescriptorPool(database)
            found = pool.FindServiceByName(service).FindMethodByName("Deliberate")
            request = message_factory.GetMessageClass(found.input_type)
            answer = message_factory.GetMessageClass(found.output_type)
            asked: Any = request(task_id="q-1", task_description="Reverse a list.", num_agents=2, rounds=1)
            asked.constraints.rubric = "clarity\ntruth"
            method = channel.unary_unary(f"/{service}/Deliberate", request.SerializeToString, answer.FromString)
            told = method(asked, timeout=PATIENCE, metadata=(("x-anywire-tenant", "lab"),))
            return sorted(database.get_services()), told

    async with serving(tmp_path) as (_, kept, gateway):
        target = gateway.address.partition("://")[2]
        for service in (ORCHESTRATOR, "orchestrator.v1.OrchestratorService"):
            services, told = await expect(asyncio.to_thread(ask, target, service), "the client is answered")
            assert told.winner_id == (await ended(kept)).winner
            assert told.results[0].proposal.author_id == told.winner_id
        assert services == [
            "fleet.orchestrator.v1.OrchestratorService",
            "fleet.ray_executor.v1.RayExecutorService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "orchestrator.v1.OrchestratorService",
            "ray_executor.v1.RayExecutorService",
        ]


async def test_health_is_told_to_everybody_until_it_closes(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, gateway), channel_to(gateway) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", ORCHESTRATOR, EXECUTOR):
            told = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
            assert told.status == health_pb2.HealthCheckResponse.SERVING


async def test_no_deadline_is_needed(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with serving(tmp_path, engine=engine) as (client, kept, _):
        waiting = client.call("Deliberate", question(), timeout=None)
        await engine.all_asked("proposal", 3)
        engine.release("proposal")
        assert (await expect(waiting, "it is answered")).winner_id == (await ended(kept)).winner


# The contract

TABLE = {
    "DeliberateRequest": "task_id task_description role constraints rounds num_agents",
    "DeliberateResponse": "task_id results winner_id duration_ms metadata",
    "GetDeliberationResultRequest": "task_id",
    "GetDeliberationResultResponse": "task_id status results winner_id duration_ms error_message metadata",
    "TaskConstraints": "rubric requirements metadata max_iterations timeout_seconds",
    "DeliberationResult": "proposal checks score rank",
    "Proposal": "author_id author_role content created_at_ms revisions",
    "CheckSuite": "policy lint dryrun additional_checks all_passed",
    "PolicyResult": "passed violations message",
    "LintResult": "passed error_count warning_count errors",
    "DryRunResult": "passed output exit_code message",
    "CheckResult": "check_type passed score message details",
    "OrchestratorMetadata": "orchestrator_version timestamp_ms execution_id tags",
    "DeliberationUpdate": "status progress_percent current_step current_agent partial_result",
    "OrchestrateRequest": "task_id task_description role constraints options case_id story_id plan_id context_options",
    "OrchestratorOptions": "enable_peer_review deliberation_rounds enable_architect_selection custom_params",
    "ContextOptions": "include_timeline include_decisions include_summaries max_events scopes",
    "OrchestrateResponse": "winner candidates execution_id duration_ms metadata",
    "RegisterAgentRequest": "agent_id role capabilities endpoint metadata",
    "RegisterAgentResponse": "success message council_id",
    "AgentCapabilities": "supported_tasks model_profile max_concurrent_tasks languages",
    "UnregisterAgentRequest": "agent_id role",
    "UnregisterAgentResponse": "success message",
    "CreateCouncilRequest": "role num_agents config",
    "CouncilConfig": "deliberation_rounds enable_peer_review model_profile custom_params agent_type",
    "CreateCouncilResponse": "council_id agents_created agent_ids",
    "ListCouncilsRequest": "role_filter include_agents",
    "ListCouncilsResponse": "councils",
    "CouncilInfo": "council_id role num_agents agents status model",
    "AgentInfo": "agent_id role status capabilities",
    "DeleteCouncilRequest": "role",
    "DeleteCouncilResponse": "success message agents_removed",
    "GetStatusRequest": "include_stats",
    "GetStatusResponse": "status uptime_seconds stats",
    "OrchestratorStats": "total_deliberations total_orchestrations avg_deliberation_time_ms active_councils"
    " role_counts",
    "GetMetricsRequest": "metric_type time_range_ms",
    "GetMetricsResponse": "performance agents councils",
}
EXECUTOR_TABLE = {
    "ExecuteDeliberationRequest": "task_id task_description role constraints agents vllm_url vllm_model",
    "TaskConstraints": "story_id plan_id timeout_seconds max_retries metadata",
    "BacklogReviewTaskConstraints": "story_id timeout_seconds max_retries metadata",
    "Agent": "id role model prompt_template",
    "ExecuteDeliberationResponse": "task_id deliberation_id status message",
    "GetDeliberationStatusRequest": "deliberation_id",
    "GetDeliberationStatusResponse": "status result error_message",
    "DeliberationResult": "agent_id proposal reasoning score metadata",
}


@pytest.mark.parametrize(
    ("file", "table"), [(wire.DESCRIPTOR, TABLE), (executor.DESCRIPTOR, EXECUTOR_TABLE)], ids=NAMES
)
def test_fields_have_the_numbers_of_the_contract(file: FileDescriptor, table: dict[str, str]) -> None:
    for name, fields in table.items():
        found = {field.name: field.number for field in file.message_types_by_name[name].fields}
        assert found == {field: number for number, field in enumerate(fields.split(), 1)}, name


def test_statuses_have_the_numbers_of_the_contract() -> None:
    names = "UNKNOWN PENDING IN_PROGRESS COMPLETED FAILED TIMEOUT".split()
    found = {value.name: value.number for value in wire.DeliberationStatus.DESCRIPTOR.values}
    assert found == {f"DELIBERATION_STATUS_{name}": number for number, name in enumerate(names)}


def test_checked_in_code_is_what_protoc_makes_of_the_contract(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="missing: the package grpcio-tools")
    root = SOURCES.parent
    known = Path(protoc.__file__).parent / "_proto"  # the messages of protobuf itself
    files = [str(SOURCES / f"{name}.proto") for name in NAMES]
    assert (
        protoc.main(["protoc", f"-I{root}", f"-I{known}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *files])
        == 0
    )
    for name in (f"{name}_pb2{ending}" for name in NAMES for ending in (".py", ".pyi")):
        new, old = (_unversioned(path.read_text()) for path in (tmp_path / SOURCES.name / name, SOURCES / name))
        assert new == old, f"{name} is not of its .proto: make it anew as the README says"


def _unversioned(code: str) -> str:
    """Without the version of protoc, which another version of the tools writes otherwise."""
    code = re.sub(r"# Protobuf Python Version: .*", "", code)
    return re.sub(r"ValidateProtobufRuntimeVersion\([^)]*\)", "", code)


# What messages are made of


def test_checks_are_told_as_a_suite() -> None:
    found = checks(
        [
            Check("policy", passed=False, message="no secrets", findings=("a key",)),
            Check("policy", passed=True),
            Check("lint", passed=True, warnings=2),
            Check("dry_run", passed=False, message="boom", exit_code=3),
            Check("spelling", passed=True, score=0.5, details={"language": "en"}),
            Check("size", passed=True, findings=("12 lines",)),
        ]
    )
    assert found == wire.CheckSuite(
        policy=wire.PolicyResult(passed=False, violations=["a key"], message="no secrets"),
        lint=wire.LintResult(passed=True, warning_count=2),
        dryrun=wire.DryRunResult(passed=False, output="boom", exit_code=3),
        additional_checks=[
            wire.CheckResult(check_type="spelling", passed=True, score=0.5, details={"language": "en"}),
            wire.CheckResult(check_type="size", passed=True, score=1.0, details={"findings": "12 lines"}),
        ],
        all_passed=False,
    )
    assert checks([Check("policy", passed=False)]).HasField("policy")
    assert checks([]).all_passed


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Clean code", ["Clean code"]),
        ("- clarity: easy to read\n- truth\n\n", ["clarity", "truth"]),
        ("a\na", ["a", "criterion 2"]),
        ("x" * 80, ["criterion 1"]),
        ("see: ", ["see:"]),
        ("Clarity: short\nclarity: easy\nCLARITY", ["Clarity", "criterion 2", "criterion 3"]),
        ("code_quality\ncode quality", ["code_quality", "criterion 2"]),
        ("criterion 2: first\n" + "x" * 80, ["criterion 2", "criterion 3"]),
        ("a: " + "x" * 4000, ["a"]),
    ],
)
def test_a_rubrics_text_becomes_criteria(text: str, names: list[str]) -> None:
    assert [each.name for each in described_rubric({"criteria": criteria(text)}).criteria] == names


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=70), min_size=1, max_size=6))
def test_criteria_have_names_that_differ(lines: list[str]) -> None:
    found = criteria("\n".join(lines))
    names = [each["name"] for each in found]
    assert len(set(map(spoken, names))) == len(names)
    assert all(0 < len(name) <= 64 for name in names)
    said = "\n".join(f"{each['name']}\n{each['description']}" for each in found)
    assert all(line.strip(" \t-*•").rpartition(":")[2].strip() in said for each in lines for line in each.splitlines())


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv6:[::1]:4711", True),
        ("ipv6:[::ffff:127.0.0.1]:1", True),
        ("unix:", True),
        ("ipv4:10.0.0.1:4711", False),
        ("ipv6:[fe80::1%eth0]:1", False),
        ("", False),
        ("what is this", False),
    ],
)
def test_a_peer_is_of_this_machine(peer: str, local: bool) -> None:
    assert is_local(peer) is local


# The page


class GrpcReader(Reader):
    """One whose gateway listens on a port of its own."""

    def __init__(self, folder: Path, dds_domain: int) -> None:
        super().__init__(folder, dds_domain)
        self.grpc_port = free_port()

    def here(self, text: str) -> str:
        return super().here(text).replace("50055", str(self.grpc_port))


async def test_the_page_works_as_written(tmp_path: Path, dds_domain: int) -> None:
    reader = GrpcReader(tmp_path, dds_domain)
    try:
        await reader.follow(DOCS / "how-to" / "deliberate-over-grpc.md")
        assert not reader.programs, "the page ends with everything stopped"
    finally:
        for program in reader.programs:
            await program.kill()
