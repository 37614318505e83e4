"""How much memory the models of a process may have."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from anywire_engine_models.devices.memory_limit import usable_memory

ALL = psutil.virtual_memory().total
MB = 1_000_000


def linux(root: Path, groups: str, **limits: str) -> Path:
    files = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in limits.items()}}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "usable"),
    [
        ("0::/\n", {"memory.max": f"{300 * MB}\n"}, 300 * MB),
        ("0::/\n", {"memory.max": "max\n"}, ALL),
        (
            "0::/a.slice/b.service\n",
            {"a.slice/memory.max": "200000000", "a.slice/b.service/memory.max": "max"},
            200 * MB,
        ),
        ("0::/a/b\n", {"a/memory.max": "400000000", "a/b/memory.max": "200000000"}, 200 * MB),
        ("5:cpu:/x\n4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": "100000000"}, 100 * MB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, ALL),
        ("0::/../../etc\n", {"memory.max": "100000000"}, ALL),
        ("nonsense\n::\n", {"memory.max": "\x00\xff"}, ALL),
    ],
)
def test_a_limit_of_the_container_counts(tmp_path: Path, groups: str, limits: dict[str, str], usable: int) -> None:
    assert usable_memory(linux(tmp_path, groups, **limits)) == usable


def test_where_nothing_is_told_it_is_the_machines(tmp_path: Path) -> None:
    assert usable_memory(tmp_path) == ALL
    assert 0 < usable_memory() <= ALL
