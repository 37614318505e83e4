"""Deliberations over gRPC, by the contract that existing clients have: asked, followed, told, refused."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.deliberation.deliberation_bench import ANN, Council, asked, bench, ended, request
from tests.deliberation.grpc_bench import EXECUTOR, ORCHESTRATOR, Client, channel_to, listening, question, serving
from tests.integration.tls_files import TlsFiles

from anywire.errors import ConfigError
from anywire.events import ConfigReloaded
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import new_key
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.patience import FACTOR, expect
from anywire.testing.recorder import Recorder
from anywire.testing.service_bench import service_bench
from anywire_gateway_grpc import GrpcGateway, GrpcGatewayConfig
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc import ray_executor_pb2 as executor
from anywire_gateway_grpc.calls import ID_KEY

Status = grpc.StatusCode
PENDING, IN_PROGRESS = wire.DELIBERATION_STATUS_PENDING, wire.DELIBERATION_STATUS_IN_PROGRESS
COMPLETED, FAILED = wire.DELIBERATION_STATUS_COMPLETED, wire.DELIBERATION_STATUS_FAILED


async def refused(call: Any, code: grpc.StatusCode, *parts: str) -> grpc.aio.AioRpcError:
    """The call ends with this status, and says this."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code, caught.value
    for part in parts:
        assert part in (caught.value.details() or "")
    return caught.value


def trailing(error: grpc.aio.AioRpcError) -> dict[str, str]:
    found: Any = error.trailing_metadata()
    return dict(found)


# Asking


async def test_deliberate_waits_for_the_winner_and_the_result_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, kept, _):
        call = client.call("Deliberate", question())
        answer = await call
        state = await ended(kept)
        assert dict(await call.initial_metadata())[ID_KEY] == "q-1"
        assert (answer.task_id, answer.winner_id) == ("q-1", state.winner)
        assert [each.rank for each in answer.results] == [1, 2, 3]
        first = answer.results[0]
        assert first.proposal.author_id == state.winner
        assert first.proposal.author_role == "DEV"
        assert first.proposal.content == state.answers[f"revision/1/{state.winner}"].text
        assert list(first.proposal.revisions) == [state.answers[f"proposal/0/{state.winner}"].text]
        assert first.checks.all_passed
        assert first.score == state.ranking[0].value >= answer.results[1].score
        assert answer.duration_ms == round((state.ended - state.submitted) * 1000)
        assert answer.metadata.execution_id == "q-1"
        assert answer.metadata.tags["status"] == "completed"
        found = await client.result()
        assert (found.status, found.error_message) == (COMPLETED, "")
        assert (list(found.results), found.winner_id) == (list(answer.results), answer.winner_id)
        assert await client.call("Deliberate", question()) == answer  # the same id and request again


async def test_what_is_asked_reaches_the_members(tmp_path: Path) -> None:
    engine = Council()
    limits = wire.TaskConstraints(
        rubric="Clean code and tests", requirements=["No loops.", " "], timeout_seconds=60, max_iterations=1
    )
    limits.metadata["story"] = "s-1"
    async with serving(tmp_path, engine=engine) as (client, kept, _):
        asking = question(rounds=2, num_agents=2, role="qa", constraints=limits)
        await client.call("DeliberateForBacklogReview", asking)
        asked_for = (await ended(kept)).question
    assert (asked_for.rounds, asked_for.timeout, asked_for.requirements) == (1, 60.0, ("No loops.",))
    assert asked_for.metadata == {"story": "s-1"}
    assert {member.role for member in asked_for.members} == {"QA"}
    assert [each.name for each in asked_for.rubric.criteria] == ["Clean code and tests"]
    assert "No loops." in engine.recorder.named("asked")[0][3].body


async def test_a_submission_is_answered_at_once_and_told_as_it_goes(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    engine.hold("critique")
    async with serving(tmp_path, engine=engine) as (client, kept, _):
        answer = await client.call("DeliberateForBacklogReview", question())
        assert (answer.task_id, answer.winner_id, list(answer.results)) == ("q-1", "", [])
        assert (await client.result()).status == PENDING
        engine.release("proposal")
        await engine.all_asked("critique", 6)
        found = await client.result()
        assert (found.status, list(found.results), found.winner_id) == (IN_PROGRESS, [], "")
        engine.release("critique")
        await ended(kept)
        assert (await client.result()).status == COMPLETED


async def test_who_has_no_time_left_gets_the_id_and_the_deliberation_goes_on(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with serving(tmp_path, engine=engine) as (client, kept, _):
        answer = await client.call("Deliberate", question(task_id=""), timeout=1.0 * FACTOR)
        assert answer.task_id
        assert not answer.winner_id
        assert answer.metadata.tags["status"] in ("submitted", "generating")
        engine.release("proposal")
        caller = kept.runs.anybodys(answer.task_id)
        assert caller is not None
        await expect(asyncio.shield(caller.ended), "it ends")
        assert (await client.result(answer.task_id)).status == COMPLETED


async def test_a_setting_bounds_the_wait_and_a_client_that_goes_ends_nothing(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with serving(tmp_path, engine=engine, gateway={"wait": 0}) as (client, kept, gateway):
        assert not (await client.call("Deliberate", question())).winner_id
        other = channel_to(gateway)
        stream = Client(other).stream(question())
        await anext(aiter(stream))
        await other.close(None)
        engine.release("proposal")
        assert (await ended(kept)).status == "completed"


async def test_a_stream_tells_each_step_to_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as (client, kept, _):
        updates = [each async for each in client.stream(question())]
        state = await ended(kept)
        stages = list(dict.fromkeys(each.status for each in updates))
        assert stages == ["generating", "reviewing", "scoring", "complete"]
        percents = [each.progress_percent for each in updates]
        assert percents == sorted(percents)
        assert percents[-1] == 100 > percents[-2]
        last = updates[-1]
        assert (last.current_step, last.current_agent) == ("completed", state.winner)
        assert last.partial_result.proposal.author_id == state.winner
        assert last.partial_result.rank == 1
        partial = [
            each for each in updates if each.current_step.endswith("answered") and each.partial_result.proposal.content
        ]
        assert {each.current_agent for each in partial} == {"member-1", "member-2", "member-3"}
        assert next(each.current_step for each in updates if each.status == "reviewing") == "critiquing, round 1"
        read = list[str]()
        found = kept._store.get

        async def get(tenant: str | None, name: str) -> Any:
            read.append(name)
            return await found(tenant, name)

        monkeypatch.setattr(kept._store, "get", get)
        again = [each async for each in client.stream(question())]
        assert again[-1] == last
        assert len(read) <= 2, "what has ended is not read anew for each step"


async def test_orchestrate_tells_the_winner_and_all_candidates(tmp_path: Path) -> None:
    request = wire.OrchestrateRequest(
        task_id="q-1", task_description="Reverse.", role="DEV", story_id="s-1", plan_id="p-1"
    )
    request.constraints.rubric = "clarity\ntruth"
    request.options.deliberation_rounds = 2
    request.options.custom_params["team"] = "a"
    async with serving(tmp_path) as (client, kept, _):
        answer = await client.call("Orchestrate", request)
        state = await ended(kept)
        assert answer.execution_id == "q-1"
        assert answer.winner.proposal.author_id == state.winner
        assert answer.candidates[0] == answer.winner
        assert len(answer.candidates) == 3
        assert state.question.rounds == 2
        assert state.question.metadata == {"team": "a", "story_id": "s-1", "plan_id": "p-1"}
        told = await client.call("GetStatus", wire.GetStatusRequest(include_stats=True))
        assert (told.status, told.stats.total_deliberations, told.stats.total_orchestrations) == ("healthy", 1, 1)
        assert dict(told.stats.role_counts) == {"DEV": 1}
        numbers = await client.call("GetMetrics", wire.GetMetricsRequest())
        assert numbers.performance.avg_orchestration_ms == answer.duration_ms
        assert numbers.performance.p99_latency_ms > 0
        assert (numbers.agents.total_agents, numbers.agents.active_agents) == (1, 1)
        await refused(client.call("GetMetrics", wire.GetMetricsRequest(metric_type="x")), Status.INVALID_ARGUMENT)


async def test_older_clients_find_the_service_without_the_prefix(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, kept, _):
        answer = await client.call("Deliberate", question(), service="orchestrator.v1.OrchestratorService")
        assert answer.winner_id == (await ended(kept)).winner


# How it ends


async def test_missing_members_are_told_and_it_is_completed(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, number: "fail" if member == "member-2" else "answer")
    async with serving(tmp_path, engine=engine) as (client, _, _):
        answer = await client.call("Deliberate", question())
        assert sorted(each.proposal.author_id for each in answer.results) == ["member-1", "member-3"]
        assert answer.metadata.tags["status"] == "degraded"
        assert "member-2: no proposal (engine_failed" in answer.metadata.tags["reason"]
        assert (await client.result()).status == COMPLETED


async def test_without_a_winner_who_waits_gets_an_error_and_the_result_says_failed(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, number: "fail")
    async with serving(tmp_path, engine=engine) as (client, _, _):
        await refused(client.call("Deliberate", question()), Status.ABORTED, "q-1 failed", "member-1: no proposal")
        found = await client.result()
        assert found.status == FAILED
        assert "member-1: no proposal" in found.error_message

        async def follow() -> None:
            async for _ in client.stream(question()):
                pass

        await refused(follow(), Status.ABORTED, "q-1 failed")


async def test_a_cancelled_one_has_failed_and_one_out_of_time_is_a_timeout(tmp_path: Path) -> None:
    clock = SimulatedClock()
    engine = Council(lambda member, kind, number: "hang")
    async with serving(tmp_path, clock, engine=engine) as (client, kept, _):
        await client.call("DeliberateForBacklogReview", question())
        await client.call("DeliberateForBacklogReview", question("q-2"))
        await kept.cancel("q-1", ANN, "enough")
        found = await client.result()
        assert found.status == FAILED
        assert found.error_message == "the deliberation q-1 cancelled: enough"
        waiting = client.call("Deliberate", question("q-2"))
        await engine.all_asked("proposal", 6)
        clock.advance(300)
        await refused(waiting, Status.DEADLINE_EXCEEDED, "q-2 timed out")
        found = await client.result("q-2")
        assert found.status == wire.DELIBERATION_STATUS_TIMEOUT
        assert "timed out" in found.error_message


async def test_an_unknown_id_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, _, _):
        found = await client.result("nobody")
        assert found.status == wire.DELIBERATION_STATUS_UNKNOWN
        assert "nobody" in found.error_message
        await refused(client.result(""), Status.INVALID_ARGUMENT, "task_id is empty")


# Refusals


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({"task_description": " "}, "task_description: "),
        ({"role": "CHEF"}, "there is no role 'CHEF'"),
        ({"rounds": -1}, "rounds"),
        ({"num_agents": -1}, "num_agents"),
        ({"num_agents": 2_000_000_000}, "num_agents"),
        ({"constraints": wire.TaskConstraints(timeout_seconds=-5)}, "constraints.timeout_seconds"),
        ({"constraints": wire.TaskConstraints(max_iterations=-5)}, "max_iterations"),
        ({"constraints": wire.TaskConstraints(rubric="x" * 4001)}, "constraints.rubric"),
        ({"task_id": "a\nb"}, "task_id"),
    ],
)
async def test_nonsense_is_refused_by_name(tmp_path: Path, members: dict[str, Any], part: str) -> None:
    async with serving(tmp_path) as (client, kept, _):
        error = await refused(client.call("Deliberate", question(**members)), Status.INVALID_ARGUMENT, part)
        assert trailing(error)["anywire-code"] == "invalid_request"
        assert not await kept.list(ANN)


async def test_what_is_no_message_what_is_too_large_and_what_is_not_served(tmp_path: Path) -> None:
    async with serving(tmp_path, gateway={"max_message_bytes": 2048}) as (client, _, _):
        await refused(
            client.raw(f"/{ORCHESTRATOR}/Deliberate", b"\xff\xff"), Status.INVALID_ARGUMENT, "DeliberateRequest"
        )
        await refused(client.raw(f"/{ORCHESTRATOR}/Deliberate", b"\x0a\x01\xff"), Status.INVALID_ARGUMENT)
        await refused(client.call("Deliberate", question(task_description="x" * 4096)), Status.RESOURCE_EXHAUSTED)
        for name in ("ProcessPlanningEvent", "DeriveSubtasks", "GetTaskContext"):
            await refused(client.raw(f"/{ORCHESTRATOR}/{name}"), Status.UNIMPLEMENTED, "planning")
        await refused(client.raw(f"/{ORCHESTRATOR}/Nothing"), Status.UNIMPLEMENTED)
        assert (await client.result("nobody")).status == wire.DELIBERATION_STATUS_UNKNOWN


async def test_an_id_that_is_used_for_something_else_is_refused(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with serving(tmp_path, engine=engine) as (client, _, _):
        await client.call("DeliberateForBacklogReview", question())
        await refused(
            client.call("DeliberateForBacklogReview", question(task_description="Sort.")),
            Status.ALREADY_EXISTS,
            "task_id",
        )


async def test_too_many_deliberations_and_too_many_calls_are_told_to_come_back(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with serving(tmp_path, engine=engine, max_running=1, gateway={"max_calls": 2}) as (client, _, _):
        await client.call("DeliberateForBacklogReview", question())
        await refused(client.call("DeliberateForBacklogReview", question("q-2")), Status.RESOURCE_EXHAUSTED)
        streams = [client.stream(question()) for _ in range(2)]
        for stream in streams:
            await anext(aiter(stream))
        error = await refused(client.result(), Status.RESOURCE_EXHAUSTED, "max_calls")
        assert trailing(error)["retry-after"] == "1"
        for stream in streams:
            stream.cancel()


# Councils


async def test_a_council_is_created_asked_told_and_deleted(tmp_path: Path) -> None:
    engine = Council()
    config = wire.CouncilConfig(deliberation_rounds=1, model_profile="Qwen/Qwen3-0.6B", agent_type="RAY_VLLM")
    asking = wire.CreateCouncilRequest(role="DEV", num_agents=2, config=config)
    async with serving(tmp_path, engine=engine, gateway={"models": {"*": MODEL}}) as (client, kept, _):
        made = await client.call("CreateCouncil", asking)
        names = ["agent-dev-001", "agent-dev-002"]
        assert (made.council_id, made.agents_created, list(made.agent_ids)) == ("DEV", 2, names)
        await refused(client.call("CreateCouncil", asking), Status.ALREADY_EXISTS, "DeleteCouncil")
        listing = wire.ListCouncilsRequest(role_filter="dev", include_agents=True)
        (told,) = (await client.call("ListCouncils", listing)).councils
        assert (told.council_id, told.role, told.num_agents, told.status) == ("DEV", "DEV", 2, "active")
        assert told.model == "Qwen/Qwen3-0.6B"
        assert [each.agent_id for each in told.agents] == names
        engine.hold("proposal")
        await client.call("DeliberateForBacklogReview", question(num_agents=0))
        await client.call("DeliberateForBacklogReview", question("q-2", num_agents=3))
        (told,) = (await client.call("ListCouncils", listing)).councils
        assert (told.status, told.agents[0].status) == ("busy", "busy")
        kept_back = await client.call("DeleteCouncil", wire.DeleteCouncilRequest(role="DEV"))
        assert not kept_back.success
        assert "in use" in kept_back.message
        engine.release("proposal")
        assert [each.name for each in (await ended(kept)).question.members] == names
        assert [each.model for each in (await ended(kept)).question.members] == [MODEL] * 2
        assert len((await ended(kept, "q-2")).question.members) == 3
        numbers = await client.call("GetMetrics", wire.GetMetricsRequest(metric_type="councils"))
        assert numbers.councils.health_per_council["DEV"].available_agents == 2
        assert not numbers.HasField("agents")
        gone = await client.call("DeleteCouncil", wire.DeleteCouncilRequest(role="dev"))
        assert (gone.success, gone.agents_removed) == (True, 2)
        assert not (await client.call("DeleteCouncil", wire.DeleteCouncilRequest(role="DEV"))).success


async def test_the_same_request_is_the_same_deliberation_whatever_has_become_of_the_council(tmp_path: Path) -> None:
    models = {"there": MODEL}
    asking = wire.DeliberateRequest(task_id="q-1", task_description="Reverse a list.", role="DEV")
    asking.constraints.timeout_seconds = 60
    asking.constraints.max_iterations = 1
    asking.constraints.rubric = "clarity\ntruth"
    config = wire.CouncilConfig(deliberation_rounds=2, model_profile="there")
    async with serving(tmp_path, gateway={"models": models}) as (client, kept, _):
        await client.call("CreateCouncil", wire.CreateCouncilRequest(role="DEV", num_agents=2, config=config))
        answer = await client.call("Deliberate", asking)
        assert (await ended(kept)).question.rounds == 1
        await client.call("RegisterAgent", wire.RegisterAgentRequest(agent_id="third", role="DEV"))
        assert await client.call("Deliberate", asking) == answer
        assert (await client.call("DeleteCouncil", wire.DeleteCouncilRequest(role="DEV"))).success
        assert await client.call("Deliberate", asking) == answer
        asking.constraints.max_iterations = 2
        await refused(client.call("Deliberate", asking), Status.ALREADY_EXISTS)


async def test_the_same_request_over_http_is_the_same_deliberation(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, kept, _):
        asking = question(rounds=1, constraints=wire.TaskConstraints(rubric="clarity\ntruth", timeout_seconds=60))
        answer = await client.call("Deliberate", asking)
        rubric = {"criteria": [{"name": name, "description": ""} for name in ("clarity", "truth")]}
        request = {"id": "q-1", "task": "Reverse a list.", "role": "DEV", "members": 3, "rounds": 1, "rubric": rubric}
        again = await kept.submit(kept.question({**request, "timeout": 60}, ANN))
        assert again.winner == answer.winner_id


async def test_members_without_a_name_get_one_that_is_free(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, kept, _):
        for name in ("member-2", "member-4"):
            await client.call("RegisterAgent", wire.RegisterAgentRequest(agent_id=name, role="DEV"))
        await client.call("Deliberate", question(num_agents=4))
        names = [each.name for each in (await ended(kept)).question.members]
        assert names == ["member-2", "member-4", "member-3", "member-5"]


async def test_a_long_template_is_said_to_its_member(tmp_path: Path) -> None:
    template = "You are careful. " * 500
    asking = executor.ExecuteDeliberationRequest(task_id="q-1", task_description="Reverse a list.", role="DEV")
    asking.agents.add(id="agent-1", prompt_template=template)
    async with serving(tmp_path) as (client, kept, _):
        await client.call("ExecuteDeliberation", asking, service=EXECUTOR)
        assert (await ended(kept)).question.members[0].style == template


async def test_agents_are_registered_as_members_one_after_the_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, _, _):

        def register(name: str, **members: Any) -> Any:
            return client.call("RegisterAgent", wire.RegisterAgentRequest(agent_id=name, role="QA", **members))

        names = [f"agent-{number}" for number in range(8)]
        answers = await asyncio.gather(*map(register, names))
        assert all(each.success and each.council_id == "QA" for each in answers)
        (told,) = (await client.call("ListCouncils", wire.ListCouncilsRequest(include_agents=True))).councils
        assert sorted(each.agent_id for each in told.agents) == names
        for again in (register("agent-1"), register("x", endpoint="http://there"), register("a/b")):
            answer = await again
            assert not answer.success
            assert answer.message
        for name in [*names, "agent-1"]:
            asking = wire.UnregisterAgentRequest(agent_id=name, role="QA")
            assert (await client.call("UnregisterAgent", asking)).success == (name in names)
            names = [each for each in names if each != name]
        assert not (await client.call("ListCouncils", wire.ListCouncilsRequest())).councils


# The executor


async def test_an_existing_orchestrator_finds_its_executor_here(tmp_path: Path) -> None:
    asking = executor.ExecuteDeliberationRequest(
        task_id="t-7",
        task_description="Reverse a list.",
        role="DEV",
        vllm_url="http://vllm:8000",
        vllm_model="Qwen/Qwen3-0.6B",
    )
    asking.constraints.story_id = "s-1"
    asking.constraints.metadata["ceremony_id"] = "c-1"
    for number in (1, 2):
        asking.agents.add(id=f"agent-dev-{number:03}", role="DEV", model="Qwen/Qwen3-0.6B")
    engine = Council()
    engine.hold("proposal")
    (tmp_path / "plain.yaml").write_text("criteria:\n- name: clarity\n- name: truth\n")
    settings: dict[str, Any] = {
        "gateway": {"models": {"Qwen/Qwen3-0.6B": MODEL}},
        "rubrics": tmp_path,
        "rubric": "plain",
    }
    async with serving(tmp_path, engine=engine, **settings) as (client, kept, _):
        answer = await client.call("ExecuteDeliberation", asking, service=EXECUTOR)
        assert (answer.task_id, answer.deliberation_id, answer.status) == ("t-7", "t-7", "submitted")
        look = executor.GetDeliberationStatusRequest(deliberation_id="t-7")
        assert (await client.call("GetDeliberationStatus", look, service=EXECUTOR)).status == "running"
        await engine.all_asked("proposal", 2)
        (job,) = (await client.call("GetActiveJobs", executor.GetActiveJobsRequest(), service=EXECUTOR)).jobs
        assert (job.job_id, job.status, job.role) == ("t-7", "RUNNING", "DEV")
        assert job.start_time.seconds > 0
        engine.release("proposal")
        state = await ended(kept, "t-7")
        found = await client.call("GetDeliberationStatus", look, service=EXECUTOR)
        assert (found.status, found.result.agent_id) == ("completed", state.winner)
        assert found.result.proposal == state.answers[f"revision/1/{state.winner}"].text
        assert 0 <= found.result.score <= 1
        assert found.result.metadata["model"] == MODEL
        assert state.question.metadata == {"ceremony_id": "c-1", "story_id": "s-1"}
        told = await client.call("GetStatus", executor.GetStatusRequest(include_stats=True), service=EXECUTOR)
        assert (told.status, told.stats.completed_deliberations, told.stats.active_deliberations) == ("healthy", 1, 0)
        look = executor.GetDeliberationStatusRequest(deliberation_id="nobody")
        assert (await client.call("GetDeliberationStatus", look, service=EXECUTOR)).status == "not_found"
        review = executor.ExecuteBacklogReviewDeliberationRequest(task_description="Review.", role="QA")
        review.constraints.story_id = "s-2"
        answer = await client.call("ExecuteBacklogReviewDeliberation", review, service=EXECUTOR)
        assert answer.deliberation_id


# Who is let in


def made(path: Path, **settings: Any) -> tuple[str, str]:
    """A new key in the file, and its id."""
    key = new_key()
    add_key(path, record_of(key, **settings))
    return str(key), key.id


@asynccontextmanager
async def known(keys: Path) -> AsyncIterator[KeyAccess]:
    access = KeyAccess(keys)
    await access.start()
    try:
        yield access
    finally:
        await access.close()


async def test_keys_are_asked_for_and_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    (first, _), (second, _) = made(keys, tenant="lab"), made(keys, tenant="other")
    engine = Council()
    engine.hold("proposal")
    access = KeyAccess(keys)
    async with serving(tmp_path, engine=engine, access=access) as (client, kept, _):
        await refused(client.call("Deliberate", question()), Status.UNAUTHENTICATED)
        bad = Client(client.channel, (("authorization", "Basic x"),))
        await refused(bad.call("Deliberate", question()), Status.UNAUTHENTICATED, "Bearer")
        lab, other = (Client(client.channel, (("authorization", f"Bearer {key}"),)) for key in (first, second))
        await lab.call("DeliberateForBacklogReview", question())
        assert (await lab.result()).status == PENDING
        assert (await other.result()).status == wire.DELIBERATION_STATUS_UNKNOWN
        await other.call("DeliberateForBacklogReview", question(task_description="Something else."))
        assert len(await kept.list(ANN)) == 1


async def test_a_stream_ends_when_its_key_does(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key, key_id = made(keys, tenant="lab")
    engine = Council()
    engine.hold("proposal")
    async with known(keys) as access, serving(tmp_path, engine=engine, access=access) as (client, _, _):
        lab = Client(client.channel, (("authorization", f"Bearer {key}"),))
        stream = lab.stream(question())
        await anext(aiter(stream))
        revoke_keys(keys, [key_id])

        async def follow() -> None:
            async for _ in stream:
                pass

        await refused(follow(), Status.UNAUTHENTICATED, "revoked")


async def test_a_key_that_a_certificate_stands_for_counts_over_tls(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "tls")
    certificate, key = files.client_files()
    shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    keys = tmp_path / "keys.json"
    add_key(keys, record_of(None, "robotrobotro", tenant="lab", certificate=shown))
    other = files.client_files("other@example.org")
    async with (
        bench(tmp_path, access=KeyAccess(keys)) as (served, kept),
        listening(served, tls=files.mutual) as gateway,
    ):
        assert gateway.address.startswith("grpcs://127.0.0.1:")
        assert gateway.tls == files.mutual
        for shows, code in (((certificate, key), None), (other, Status.UNAUTHENTICATED), ((), Status.UNAVAILABLE)):
            parts = [files.ca, *reversed(shows)]
            credentials = grpc.ssl_channel_credentials(*(each.read_bytes() for each in parts))
            async with channel_to(gateway, credentials) as channel:
                call = Client(channel, ()).call("DeliberateForBacklogReview", question())
                if code is None:
                    assert (await call).task_id == "q-1"
                else:
                    await refused(call, code)
        assert (await ended(kept)).status == "completed"


async def test_another_certificate_is_shown_once_the_files_have_changed(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "tls")
    events = Recorder()
    async with bench(tmp_path) as (served, _), listening(served, tls=files.tls) as gateway:
        served.orchestrator.events.subscribe("test", lambda event: events.add(event.error), ConfigReloaded)
        credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
        files.renew("elsewhere.example.org")
        await events.until(lambda: events.events == [("",)], "the new certificate is read")
        async with channel_to(gateway, credentials) as channel:
            await refused(Client(channel).result(), Status.UNAVAILABLE)
        files.certificate.write_text("nonsense")
        await events.until(lambda: len(events.events) == 2, "the broken one is told")


# Its life


async def test_it_needs_the_service_and_a_free_port(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as served:
        gateway = GrpcGateway(GrpcGatewayConfig(port=0))
        with pytest.raises(ConfigError, match="needs the service deliberation"):
            await gateway.start(served.context("grpc"))
        await gateway.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with bench(tmp_path) as (served, _):
            gateway = GrpcGateway(GrpcGatewayConfig(port=taken.getsockname()[1]))
            with pytest.raises(ConfigError, match=r"another process uses it.*gateways\.grpc\.port"):
                await gateway.start(served.context("grpc"))
            await gateway.close()


async def test_closing_ends_calls_and_not_what_they_asked_for(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (served, kept):
        async with listening(served) as gateway, channel_to(gateway) as channel:
            waiting = asyncio.ensure_future(Client(channel).call("Deliberate", question()))
            await engine.all_asked("proposal", 3)
            await expect(gateway.close(), "it closes")
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await waiting
        engine.release("proposal")
        assert (await ended(kept)).status == "completed"


async def test_what_rest_has_asked_is_told_here(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, kept, _):
        await asked(kept, **{name: value for name, value in request().items() if name != "id"}, id="r-1")
        await ended(kept, "r-1")
        assert (await client.result("r-1")).status == COMPLETED


async def test_a_slow_reader_of_updates_gets_all_of_them_beside_a_quick_one(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        slow = kept.updates("q-1", ANN)
        numbers = [(await anext(slow)).number]
        engine.release("critique")
        quick = [update async for update in kept.updates("q-1", ANN)]
        await ended(kept)
        names = []
        async for update in slow:
            numbers.append(update.number)
            names.append(update.name)
        assert numbers == [update.number for update in quick]
        assert names[-1] == "ended"
