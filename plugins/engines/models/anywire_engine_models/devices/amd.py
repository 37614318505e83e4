"""Cards of AMD, through what the driver amdgpu shows in sysfs."""

from __future__ import annotations

import re
from pathlib import Path

from anywire.printable import printable
from anywire_engine_models.devices.cards import Card

SYSFS = Path("/sys/class/drm")
_CARD = re.compile(r"card(\d{1,4})")
_AMD = "0x1002"


class AmdCards:
    """``root`` is where the kernel lists graphics cards."""

    def __init__(self, root: Path = SYSFS) -> None:
        self._root = root

    def read(self, first: int) -> tuple[list[Card], str]:
        """See `CardSource`. In the order of the kernel's numbers."""
        cards: list[Card] = []
        faults = []
        for folder in self._folders():
            if _line(folder / "vendor") != _AMD:
                continue
            total, used = _integer(folder / "mem_info_vram_total"), _integer(folder / "mem_info_vram_used")
            if not total or used is None:
                faults.append(f"{folder.parent.name} is left out: its driver does not tell of its memory")
                continue
            heat = next(
                (value for each in sorted(folder.glob("hwmon/hwmon*/temp1_input")) if (value := _integer(each))), None
            )
            busy = _integer(folder / "gpu_busy_percent")
            cards.append(
                Card(
                    device=f"gpu:{first + len(cards)}",
                    name=printable(_line(folder / "product_name") or f"AMD {_line(folder / 'device')}", 100),
                    vram_total_bytes=total,
                    vram_free_bytes=max(0, total - used),
                    gpu_percent=None if busy is None else float(min(busy, 100)),
                    temperature_celsius=None if heat is None else heat / 1000,
                )
            )
        return cards, "; ".join(faults)

    def close(self) -> None:
        pass

    def _folders(self) -> list[Path]:
        """What has connectors of its own (``card0-HDMI-A-1``) is listed beside them, and is none."""
        try:
            found = [(int(match[1]), each) for each in self._root.iterdir() if (match := _CARD.fullmatch(each.name))]
        except OSError:
            return []
        return [each / "device" for _, each in sorted(found)]


def _line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(256).decode(errors="replace").strip()
    except OSError:
        return ""


def _integer(path: Path) -> int | None:
    line = _line(path)
    return int(line) if line.isascii() and line.isdigit() and len(line) < 20 else None
