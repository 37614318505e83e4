"""What the service ``conversations`` keeps: whole turns or nothing, within its bounds, for whom it belongs to."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.caller import Caller
from anywire.conversation_items import Item, checked_items, user_message
from anywire.conversations import KeptResponse, Page, read_page
from anywire.errors import ConfigError, InvalidRequest, PayloadTooLarge, QueueFull
from anywire.testing.service_kit import ServiceConformance
from anywire_service_conversations.database import FILE, Database
from anywire_service_conversations.items import GIVEN
from anywire_service_conversations.records import Conversation, encoded_items, written

ALICE, BOB = Caller("a", "alice"), Caller("b", "bob")
LONG_AGO = 0.0


class TestConversations(ServiceConformance):
    service = "conversations"


def opened(folder: Path, **bounds: int) -> Database:
    folder.mkdir(mode=0o700, exist_ok=True)
    database = Database(folder, **{"max_kept": 1000, "max_bytes": 2**20, "max_history_bytes": 2**16, **bounds})
    assert database.open()
    return database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = opened(tmp_path / "kept")
    yield made
    made.close()


def said(text: str) -> Item:
    return checked_items([{"role": "assistant", "content": text}], "output")[0]


def response(
    name: str, text: str = "", caller: Caller = ALICE, previous: str = "", conversation: str = "", **more: Any
) -> KeptResponse:
    """A turn: the user says ``text``, the assistant answers it."""
    made = {"id": name, "status": "completed", "background": False, "output": [said(f"re: {text}")], **more}
    return KeptResponse(name, caller, made, (user_message(text),), previous, conversation)


def end(database: Database, given_response: KeptResponse, key: str = "", store: bool = True) -> bool:
    adds = given_response.response["status"] == "completed"
    return database.end(written(given_response), store, key, b"d", adds, LONG_AGO)


def begin(database: Database, given_response: KeptResponse, key: str = "") -> None:
    not_ended = msgspec.structs.replace(given_response, ended=False)
    database.begin(written(not_ended), key, b"d", LONG_AGO)


def talk(database: Database, name: str, caller: Caller = ALICE, *given_texts: str) -> None:
    items = encoded_items([user_message(each) for each in given_texts])
    database.add_conversation(Conversation(name, caller, time.time(), {}), items, LONG_AGO)


def texts(items: list[Item]) -> list[str]:
    return ["".join(part["text"] for part in each["content"]) for each in items]


def test_a_chain_of_responses_is_read_from_its_beginning(database: Database) -> None:
    for number in range(50):
        end(database, response(f"r{number}", f"{number}", previous=f"r{number - 1}" if number else ""))
    items, root = database.history("r49", "")
    assert texts(items) == [each for number in range(50) for each in (f"{number}", f"re: {number}")]
    assert root == "r0"
    branch, _ = database.history("r1", "")
    assert texts(branch) == ["0", "re: 0", "1", "re: 1"]


def test_a_history_without_its_beginning_is_refused(database: Database) -> None:
    for number in range(3):
        end(database, response(f"r{number}", "x", previous=f"r{number - 1}" if number else ""))
    database.remove("r0")
    with pytest.raises(InvalidRequest, match="'r0'") as refused:
        database.history("r2", "")
    assert (refused.value.status, refused.value.detail_code) == (404, "previous_response_not_found")
    with pytest.raises(InvalidRequest, match="no response 'nothing'"):
        database.history("nothing", "")


def test_a_turn_of_a_conversation_is_kept_with_its_response_or_not_at_all(database: Database) -> None:
    talk(database, "c", ALICE, "first")
    assert end(database, response("r1", "one", conversation="c"))
    assert not end(database, response("r1", "one", conversation="c")), "it has ended already"
    assert end(database, response("r2", "two", conversation="c"), store=False)
    assert database.response("r2") is None
    failed = response("r3", "three", conversation="c", status="failed", output=[])
    assert end(database, failed)
    assert texts(database.history("", "c")[0]) == ["first", "one", "re: one", "two", "re: two"]
    long = response("r4", "x" * 2**16, conversation="c")
    with pytest.raises(PayloadTooLarge, match="max_history_bytes"):
        end(database, long)
    assert database.response("r4") is None, "nothing of it is kept"
    assert len(database.history("", "c")[0]) == 5


def test_a_response_in_the_background_keeps_its_input_and_its_key(tmp_path: Path, database: Database) -> None:
    talk(database, "c")
    begun = response("r", "asked", conversation="c", background=True, status="queued", output=[])
    begin(database, begun, key="k")
    (running,) = database.running()
    assert (running.response_id, running.input, running.response["output"]) == ("r", (), [])
    assert running.caller == Caller("a", "alice")
    database.close()
    database = opened(tmp_path / "kept")
    (running,) = database.running()
    answered = {**running.response, "status": "completed", "output": [said("answered")]}
    whole = KeptResponse("r", ALICE, answered, conversation="c")
    assert end(database, whole)
    assert not end(database, whole)
    assert database.running() == []
    assert texts(database.history("", "c")[0]) == ["asked", "answered"]
    assert texts(database.page("r", Page(), GIVEN).items) == ["asked"]
    found = database.by_key("k", LONG_AGO)
    assert found is not None
    assert found[0].response == answered
    database.close()


def test_a_response_that_was_removed_while_it_ran_is_not_kept_and_a_failed_one_frees_its_key(
    database: Database,
) -> None:
    begun = response("r", "x", background=True, status="queued", output=[])
    begin(database, begun, key="k")
    database.remove("r")
    assert not end(database, response("r", "x", background=True))
    begin(database, begun, key="k")
    assert end(database, response("r", "x", background=True, status="failed", output=[]))
    assert database.by_key("k", LONG_AGO) is None
    begin(database, response("s", "x", background=True, output=[]), key="k")
    with pytest.raises(sqlite3.IntegrityError):
        begin(database, response("t", "x", background=True, output=[]), key="k")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "end", "append", "take", "drop", "expire"]), st.integers(0, 3), st.booleans()
        ),
        max_size=25,
    )
)
@settings(max_examples=examples(30), deadline=None)
def test_bounds_hold_whatever_is_done_and_sizes_are_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]
) -> None:
    database = opened(tmp_path_factory.mktemp("kept") / "kept", max_kept=4, max_bytes=3000, max_history_bytes=1500)
    for number, (step, which, is_bob) in enumerate(steps):
        caller = BOB if is_bob else ALICE
        try:
            if step == "add":
                talk(database, f"c{which}-{number}", caller, "x" * 100)
            elif step == "end":
                end(database, response(f"r{number}", "x" * 10 * number, caller))
            elif step == "append":
                for (name,) in database._rows("SELECT id FROM kept WHERE kind = 'conversation' LIMIT 1"):
                    database.append(name, encoded_items([user_message("y" * 50 * which)]), LONG_AGO)
            elif step == "take":
                for owner, item in database._rows("SELECT owner, id FROM items LIMIT 1"):
                    database.remove_item(owner, item)
            elif step == "drop":
                for (name,) in database._rows("SELECT id FROM kept LIMIT 1"):
                    database.remove(name)
            else:
                database.remove_expired(time.time() - 1000 * which)
        except (PayloadTooLarge, QueueFull):
            pass
        ((count, size),) = database._rows("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM kept")
        ((items,),) = database._rows("SELECT COALESCE(SUM(length(id) + length(item)), 0) FROM items")
        ((heads,),) = database._rows("SELECT COALESCE(SUM(length(data)), 0) FROM kept")
        assert (count <= 4, size <= 3000, size) == (True, True, items + heads)
        assert database._rows("SELECT 1 FROM items WHERE owner NOT IN (SELECT id FROM kept)") == []
    database.close()


def test_the_tenant_that_has_the_most_gives_way_and_what_runs_does_not(tmp_path: Path) -> None:
    database = opened(tmp_path / "kept", max_kept=4)
    end(database, response("a1", "x"))
    end(database, response("a2", "x"))
    end(database, response("a3", "x"))
    end(database, response("b1", "x", BOB))
    database.history("a1", "")  # the newest use counts
    end(database, response("b2", "x", BOB))
    assert {name for (name,) in database._rows("SELECT id FROM kept")} == {"a1", "a3", "b1", "b2"}
    database.close()
    database = opened(tmp_path / "running", max_kept=1)
    begin(database, response("r", "x", background=True, output=[]))
    with pytest.raises(QueueFull, match="max_kept"):
        talk(database, "c")
    database.close()


def test_what_is_used_stays_and_what_is_not_expires(database: Database) -> None:
    end(database, response("old", "x"))
    end(database, response("new", "y", previous="old"))
    end(database, response("alone", "z"))
    database._run("UPDATE kept SET used = 5 WHERE id IN ('old', 'alone')")
    database.history("new", "")
    database.remove_expired(10.0)
    assert database.response("alone") is None
    assert texts(database.history("new", "")[0]) == ["x", "re: x", "y", "re: y"]


@given(st.integers(0, 12), st.integers(1, 5), st.sampled_from(["asc", "desc"]))
@settings(max_examples=examples(25), deadline=None)
def test_pages_are_the_whole_list_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, limit: int, order: Any
) -> None:
    database = opened(tmp_path_factory.mktemp("kept") / "kept")
    talk(database, "c", ALICE, *map(str, range(count)))
    found: list[Item] = []
    after, more = "", True
    while more:
        page = database.page("c", Page(after, limit, order))
        assert len(page.items) <= limit
        found += page.items
        more, after = page.has_more, found[-1]["id"] if found else ""
    expected = list(map(str, range(count)))
    assert texts(found) == (expected if order == "asc" else expected[::-1])
    database.close()


def test_items_are_found_by_their_ids_for_whose_they_are(database: Database) -> None:
    given_response = response("r", "x")
    end(database, given_response)
    output = given_response.response["output"][0]
    assert database.items([output["id"], "msg_nothing", output["id"]], ALICE) == {output["id"]: output}
    assert database.items([output["id"]], BOB) == {}
    assert database.remove_item("r", output["id"])
    assert not database.remove_item("r", output["id"])
    assert database.item("r", output["id"]) is None


def test_a_damaged_row_is_lost_alone_and_a_damaged_file_is_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "kept"
    database = opened(folder)
    end(database, response("r", "x"))
    end(database, response("s", "x"))
    database._run("UPDATE kept SET data = ? WHERE id = 'r'", b"{")
    assert database.response("r") is None
    assert database.response("s") is not None
    assert "the response r is lost" in caplog.text
    database.close()
    (folder / FILE).write_bytes(b"damaged" * 1000)
    database = opened(folder)
    assert database.response("s") is None
    database.close()
    folder.chmod(0o755)
    with pytest.raises(ConfigError):
        opened(folder)


def test_a_second_process_gets_the_folder_when_the_first_has_ended(tmp_path: Path, database: Database) -> None:
    second = Database(tmp_path / "kept", 1000, 2**20, 2**16)
    assert not second.open()
    end(database, response("r", "x"))
    database.close()
    assert second.open()
    assert second.response("r") is not None
    second.close()


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"limit": "١"}, {"order": "up"}])
def test_a_page_that_cannot_be_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_page(query)
    assert refused.value.param in query


def test_what_is_kept_is_json_that_anybody_can_read(database: Database) -> None:
    end(database, response("r", "ein Text – 😀"))
    ((item,),) = database._rows("SELECT item FROM items WHERE owner = 'r' AND side = 0")
    assert json.loads(item)["content"][0]["text"] == "ein Text – 😀"
