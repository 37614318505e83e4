"""The result of one check of ``anywire doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Finding(NamedTuple):
    """The result of one check; ``remedy`` says what to do when it failed or warns. A warning is no failure: what it
    tells of may be meant to be so."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""
    warns: bool = False
    settings: Mapping[str, str] = {}
    """What a transport says is in force."""

    @property
    def state(self) -> Literal["ok", "warn", "fail"]:
        if not self.ok:
            return "fail"
        return "warn" if self.warns else "ok"

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "ok": self.ok,
            "state": self.state,
            "detail": self.detail,
            "remedy": self.remedy,
            "settings": dict(self.settings),
        }


def show(finding: Finding, settings: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    mark = {"ok": "[green]ok  [/]", "warn": "[yellow]WARN[/]", "fail": "[red]FAIL[/]"}[finding.state]
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{mark}  [bold]{escape(finding.check)}[/]: {escape(finding.detail)}")
    if finding.remedy and finding.state != "ok":
        console.print(f"      → {escape(finding.remedy)}")
    for name, value in finding.settings.items() if settings else ():
        console.print(f"      [dim]{escape(name)}: {escape(value)}[/]")
