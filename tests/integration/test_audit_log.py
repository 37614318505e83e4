"""The audit log as files: its chain, its rotation, crashes, and everything that somebody may do to it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.errors import ConfigError
from anywire_service_audit.chain import Actor, Entry, read
from anywire_service_audit.folder import file_name, is_written, log_files, read_key
from anywire_service_audit.journal import Journal
from anywire_service_audit.verify import Verdict, verify_below

WRITER = Path(__file__).with_name("audit_writer.py")
KEY = b"k" * 32


def entries(count: int, begin: int = 0) -> list[Entry]:
    return [
        Entry(1.7e9 + number, "test.entry", Actor(f"key-{number % 3}", "lab", "operate"), f"target-{number}")
        for number in range(begin, begin + count)
    ]


def write(folder: Path, count: int = 10, *, begin: int = 0, **settings: Any) -> Journal:
    journal = Journal(folder, **settings)
    assert journal.append(entries(count, begin)) == (count, None)
    journal.close()
    return journal


def verdict(folder: Path, **given: Any) -> Verdict:
    (found,) = verify_below(folder, **given)
    return found


def fault(folder: Path, **given: Any) -> str:
    found = verdict(folder, **given).fault
    assert found is not None
    return str(found)


def targets(folder: Path) -> list[str]:
    lines = [line for _, path in log_files(folder) for line in path.read_bytes().splitlines()]
    records = [found[0] for line in lines if (found := read(line)) is not None]
    assert len(records) == len(lines)
    return [record.target for record in records if record.action == "test.entry"]


# What is written


def test_a_log_is_whole_across_files_and_lives(tmp_path: Path) -> None:
    for life in range(3):
        write(tmp_path, 30, begin=30 * life, max_bytes=2000)
    found = verdict(tmp_path)
    assert found.fault is None
    assert (found.first_seq, found.torn, found.closed, found.is_written) == (1, 0, True, False)
    assert found.files == len(log_files(tmp_path)) > 6
    assert found.last_seq == 90 + 3 * 2 + found.files  # entries; opened and closed; the first lines
    assert targets(tmp_path) == [f"target-{number}" for number in range(90)]


def test_files_are_for_this_user_alone_and_wider_ones_are_refused_with_what_mends_them(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "log"
    write(folder)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    assert modes == {"log": 0o700, "lock": 0o600, file_name(1): 0o600}
    (folder / file_name(1)).chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {folder / file_name(1)}"):
        Journal(folder).open()
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match=f"chmod 700 {folder}"):
        Journal(folder).open()


def test_a_file_ends_with_its_age_and_the_log_tells_where(tmp_path: Path, caplog: Any) -> None:
    now = [1.7e9]
    journal = Journal(tmp_path, max_age=60.0, now=lambda: now[0])
    caplog.set_level("INFO")
    journal.append(entries(1))
    now[0] += 59.0
    journal.append(entries(1))
    assert len(log_files(tmp_path)) == 1
    head = journal.head
    now[0] += 1.0
    journal.append(entries(1))
    journal.close()
    assert len(log_files(tmp_path)) == 2
    told = [record.args for record in caplog.records if "ends with entry" in record.msg]
    assert told == [(tmp_path / file_name(1), *head), (tmp_path / file_name(2), *journal.head)]
    assert verdict(tmp_path, heads=[head[1], journal.head[1]]).fault is None


def test_the_oldest_files_are_removed_and_only_those(tmp_path: Path) -> None:
    write(tmp_path, 60, max_bytes=1500, keep=3)
    numbers = [number for number, _ in log_files(tmp_path)]
    assert numbers == list(range(numbers[-1] - 2, numbers[-1] + 1))
    found = verdict(tmp_path)
    assert found.fault is None
    assert found.first_seq > 1
    log_files(tmp_path)[0][1].unlink()
    assert fault(tmp_path).endswith("is missing, and no entry says that it was removed")


def test_two_processes_never_write_one_file(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    for number in range(4):
        assert first.append(entries(1, number)) == (1, None)
        assert second.append(entries(1, number)) == (1, None)
    assert is_written(tmp_path)
    assert (first.folder, second.folder) == (tmp_path, tmp_path / "2")
    first.close()
    assert not is_written(tmp_path)
    third = Journal(tmp_path)
    third.append(entries(1, 4))
    third.close()
    second.close()
    assert third.folder == tmp_path
    found = verify_below(tmp_path)
    assert [each.fault for each in found] == [None, None]
    assert [len(targets(each.folder)) for each in found] == [5, 4]
    assert verify_below(tmp_path, heads=[first.head[1], second.head[1]])[0].fault is None
    assert verify_below(tmp_path, heads=["0" * 64])[0].fault is not None


def test_an_entry_that_cannot_be_written_as_it_is_holds_no_other_up(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    odd = [
        Entry(1.7e9, "odd", target="\ud800\n\u2028" * 300, detail={"number": value})
        for value in (2**70, object(), {1, 2})
    ]
    assert journal.append([*odd, *entries(1)]) == (4, None)
    journal.close()
    assert verdict(tmp_path).fault is None
    assert targets(tmp_path) == ["target-0"]


# Keys


def test_with_a_key_nobody_without_it_writes_the_chain_anew(tmp_path: Path) -> None:
    write(tmp_path / "log", key=KEY)
    assert verdict(tmp_path / "log", key=KEY).fault is None
    assert "need a key" in fault(tmp_path / "log")
    assert "the key is wrong" in fault(tmp_path / "log", key=b"x" * 32)
    write(tmp_path / "forged")
    assert verdict(tmp_path / "forged").fault is None
    assert "need no key" in fault(tmp_path / "forged", key=KEY)


def test_a_key_given_later_begins_a_file_and_cannot_be_left_out_again(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, key=KEY, begin=10)
    found = verdict(tmp_path, key=KEY)
    assert (found.fault, found.unkeyed, found.files) == (None, file_name(1), 2)
    write(tmp_path, begin=20)
    assert fault(tmp_path, key=KEY).startswith(f"{file_name(3)} line 1: its hashes need no key")


def test_a_key_is_made_once_and_refused_when_others_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.key"
    key = read_key(path, make=True)
    assert (len(key), path.stat().st_mode & 0o777) == (64, 0o600)
    assert read_key(path, make=True) == read_key(path) == key
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        read_key(path)
    short = tmp_path / "short.key"
    short.write_bytes(b"short")
    short.chmod(0o600)
    with pytest.raises(ConfigError, match="at least 32"):
        read_key(short)


# Changes by others


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """The lines of a log of several files, by file, and where it ends."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, 25, max_bytes=2500, key=KEY)
    return {path.name: path.read_bytes().splitlines(keepends=True) for _, path in log_files(folder)}


Change = Callable[[random.Random, list[bytes]], object]


def flip(random: random.Random, lines: list[bytes]) -> None:
    at = random.randrange(len(lines))
    line = bytearray(lines[at])
    line[random.randrange(len(line))] ^= 1 << random.randrange(8)
    lines[at] = bytes(line)


def remove(random: random.Random, lines: list[bytes]) -> None:
    del lines[random.randrange(len(lines))]


def swap(random: random.Random, lines: list[bytes]) -> None:
    one, other = random.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]


def insert(random: random.Random, lines: list[bytes]) -> None:
    new = random.choice([*lines, b"\n", b"{}\n", b'{"seq":1}\n', b"\x00\xff\n", b"no end"])
    lines.insert(random.randrange(len(lines) + 1), new)


def shorten(random: random.Random, lines: list[bytes]) -> None:
    at = random.randrange(len(lines))
    begin = random.randrange(len(lines[at]))
    lines[at] = lines[at][:begin] + lines[at][begin + random.randint(1, 20) :]


def reword(random: random.Random, lines: list[bytes]) -> None:
    """The same JSON in other words."""
    at = random.randrange(len(lines))
    lines[at] = lines[at].replace(b",", b", ", 1)


CHANGES: Sequence[Change] = (flip, remove, swap, insert, shorten, reword)


@settings(max_examples=examples(150))
@given(seed=st.integers(0, 2**32), change=st.sampled_from(CHANGES))
def test_every_change_of_a_line_is_found(
    whole: dict[str, list[bytes]], seed: int, change: Change, tmp_path_factory: Any
) -> None:
    drawn = random.Random(seed)
    folder = tmp_path_factory.mktemp("changed")
    name = drawn.choice(list(whole))
    head = whole[max(whole)][-1][-67:-3].decode()
    changed = {each: list(lines) for each, lines in whole.items()}
    change(drawn, changed[name])
    for each, lines in changed.items():
        (folder / each).write_bytes(b"".join(lines))
    found = verdict(folder, key=KEY, heads=[head])
    if changed == whole:
        assert found.fault is None, "nothing was changed"
        return
    assert found.fault is not None
    lines = b"".join(changed[name]).splitlines(keepends=True)
    differs = next(
        (at for at, pair in enumerate(zip(lines, whole[name], strict=False)) if pair[0] != pair[1]),
        min(len(lines), len(whole[name])),
    )
    if found.fault.line:
        where = (found.fault.file, found.fault.line)
        assert where in {(name, differs + 1), (following(name), 1)}, found.fault


def following(name: str) -> str:
    return file_name(int(name[6:12]) + 1)


def test_every_file_that_is_missing_is_named(whole: dict[str, list[bytes]], tmp_path: Path) -> None:
    head = whole[max(whole)][-1][-67:-3].decode()
    for missing in whole:
        folder = tmp_path / missing
        folder.mkdir()
        for name, lines in whole.items():
            if name != missing:
                (folder / name).write_bytes(b"".join(lines))
        said = fault(folder, key=KEY, heads=[head])
        assert missing in said or (missing == max(whole) and head in said)


def test_an_end_that_was_cut_off_at_a_line_is_found_by_the_head_alone(tmp_path: Path) -> None:
    journal = write(tmp_path)
    path = tmp_path / file_name(1)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    found = verdict(tmp_path)
    assert (found.fault, found.closed) == (None, False)
    assert journal.head[1] in fault(tmp_path, heads=[journal.head[1]])


def test_what_another_writes_into_the_file_meanwhile_is_found_and_the_log_goes_on_elsewhere(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entries(2))
    path = tmp_path / file_name(1)
    lines = path.read_bytes()
    path.write_bytes(lines + lines.splitlines(keepends=True)[-1])
    journal.append(entries(2, 2))
    path.unlink()
    journal.append(entries(2, 4))
    (tmp_path / file_name(2)).unlink()
    journal.append(entries(2, 6))
    journal.close()
    assert [number for number, _ in log_files(tmp_path)] == [3]
    assert "is missing" in fault(tmp_path)


# Crashes and full disks


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_half_a_line_at_the_end_is_told_from_a_change_and_the_log_goes_on(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.append(entries(3))
    journal.close()
    path = tmp_path / file_name(1)
    path.write_bytes(path.read_bytes()[:-cut])
    found = verdict(tmp_path)
    assert (found.fault, found.closed) == (None, False)
    assert found.torn > 0
    write(tmp_path, 2, begin=3)
    found = verdict(tmp_path)
    assert (found.fault, found.torn, found.closed) == (None, 0, True)
    opened = [line for line in path.read_bytes().splitlines() if b"log.opened" in line]
    assert b'"after a crash"' in opened[-1]
    assert b'"torn_bytes":' in opened[-1]


def test_a_piece_at_the_end_that_no_crash_leaves_is_a_change(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / file_name(1)
    lines = path.read_bytes()
    last = lines.splitlines()[-1]
    changed = last.replace(b'"seq":13', b'"seq":14').replace(b"ok", b"no")
    for piece, is_torn in (
        (b"x", False),
        (b'{"seq":13', False),
        (last, False),
        (changed, False),
        (b'{"seq":14,"ti', True),
    ):
        path.write_bytes(lines + piece)
        found = verdict(tmp_path)
        assert (found.fault is None, bool(found.torn)) == (is_torn, is_torn), piece


def test_a_first_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    write(tmp_path, 12, max_bytes=1500)
    files = log_files(tmp_path)
    last = files[-1][1]
    for left in (b"", last.read_bytes()[:30]):
        last.write_bytes(left)
        write(tmp_path, 1, begin=12)
        assert verdict(tmp_path).fault is None
        assert log_files(tmp_path) == files


def test_after_kill_9_the_chain_goes_on(tmp_path: Path) -> None:
    """Several lives, each killed while it writes; what was told to be written is there."""
    told: list[str] = []
    for life in range(3):
        with subprocess.Popen([sys.executable, WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                number, folder = line.split()
                assert folder == tmp_path.name
                told.append(number)
                if int(number) == 20 + 7 * life:
                    break
            process.send_signal(signal.SIGKILL)
        found = verdict(tmp_path)
        assert (found.fault, found.closed, found.is_written) == (None, False, False)
    assert found.files > 3
    rest = iter(targets(tmp_path))
    assert all(number in rest for number in told), "in this order"


def test_on_a_full_disk_nothing_is_left_half_and_all_is_written_later(tmp_path: Path, monkeypatch: Any) -> None:
    journal = Journal(tmp_path, max_bytes=2000)
    journal.append(entries(3))
    real, room = os.write, [250]

    def write(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        count = real(file, data[: room[0]])
        room[0] -= count
        return count

    with monkeypatch.context() as full:
        full.setattr("anywire_service_audit.journal.os.write", write)
        written, error = journal.append(entries(20, 3))
        assert (written, str(error)) == (0, "[Errno 28] No space left on device")
        room[0] = 100
        assert journal.append(entries(20, 3))[0] == 0
    assert journal.append(entries(20, 3)) == (20, None)
    with monkeypatch.context() as full:
        full.setattr("anywire_service_audit.journal.os.write", write)
        room[0] = 3000  # the next file cannot be begun
        written, error = journal.append(entries(20, 23))
        assert error is not None
        assert 0 < written < 20
    assert journal.append(entries(20 - written, 23 + written)) == (20 - written, None)
    journal.close()
    assert verdict(tmp_path).fault is None
    assert targets(tmp_path) == [f"target-{number}" for number in range(43)]


def test_an_end_that_cannot_be_read_keeps_nobody_from_starting_and_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / file_name(1)).open("ab") as file:
        file.write(b"nonsense\n")
    write(tmp_path, begin=10)
    assert fault(tmp_path) == f"{file_name(1)} line 14: this is no line of a log, or it has no hash"
