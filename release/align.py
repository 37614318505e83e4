"""Keeps what all distributions share the same everywhere: version, pins between them, metadata, licence, extras.

The one place of each is the ``pyproject.toml`` of the root; this writes it into the others, the version also into
``CITATION.cff``, with the date of its release by the changelog, and into the root the extras that follow from which
distributions there are.

python release/align.py                  write
python release/align.py --version 0.2.0  write, with another version
python release/align.py --check          say what is not aligned, and exit with status 1
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from own_distributions import ROOT, Distribution, distributions, examples

SHARED = ("version", "requires-python", "license", "license-files", "authors", "classifiers", "urls")
"""Keys of ``[project]`` that every distribution has as the core has them; ``urls`` where the core has some."""
KEPT_EXTRAS = ("testing",)
"""Extras of the core that are its own."""
LATER = {"anywire-launcher-ray": "ray"}
"""Distributions whose use needs something large, which `anywire[all]` leaves out, by the extra that brings both."""
_POSIX = "sys_platform != 'win32'"
_CYCLONE = "sys_platform == 'darwin' or (sys_platform == 'linux' and platform_machine == 'x86_64')"
WHERE = {
    "anywire-dds": _CYCLONE,
    "anywire-desktop": _POSIX,
    "anywire-engine-llama": _POSIX,
    "anywire-engine-llama-dds": _CYCLONE,
    "anywire-engine-mcp": _POSIX,
    "anywire-engine-models": _POSIX,
    "anywire-experiment": _POSIX,
    "anywire-gateway-llama-dds": _CYCLONE,
}
"""Where `anywire[all]` has a distribution that does not work everywhere, or needs a wheel that is not everywhere."""
_WIDTH = 100


def aligned(root: Path = ROOT, version: str = "") -> dict[Path, str]:
    """What each file should hold."""
    core, *plugins = distributions(root)
    version = version or core.project["version"]
    shared = {key: core.project[key] for key in SHARED if key in core.project} | {"version": version}
    licence = (root / "LICENSE").read_text(encoding="utf-8")
    wanted = {core.file: _with_extras(_with_values(core, {"version": version}), [core, *plugins], version)}
    for each in (*plugins, *examples(root)):
        keywords = [*core.project["keywords"], *each.name.split("-")[1:]]
        values = shared | {"keywords": list(dict.fromkeys(keywords))}
        wanted[each.file] = _pinned(_with_values(each, values), version)
        wanted[each.folder / "LICENSE"] = licence
    citation = root / "CITATION.cff"
    if citation.is_file():
        wanted[citation] = cited(citation.read_text(encoding="utf-8"), version, _released(root, version))
    return wanted


def _released(root: Path, version: str) -> str:
    """The date of the release by the changelog; empty for none yet."""
    changelog = root / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8") if changelog.is_file() else ""
    found = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", text, re.MULTILINE)
    return found[1] if found else ""


def cited(text: str, version: str, released: str) -> str:
    """A citation file of a version, with the date of its release where there was one."""
    text = re.sub(r"^date-released: .*\n", "", text, flags=re.MULTILINE)
    dated = f"version: {version}\n" + (f"date-released: {released}\n" if released else "")
    return re.sub(r"^version: .*\n", dated, text, flags=re.MULTILINE)


def _with_values(distribution: Distribution, values: dict[str, Any]) -> str:
    """Its ``pyproject.toml`` with these keys in ``[project]``; one that is not there goes behind ``license``."""
    text = distribution.file.read_text(encoding="utf-8")
    for key, value in values.items():
        line = f"{key} = {_toml(value)}\n"
        found = re.search(rf"^{key} = (\[\n(?:    .*\n)*\]|.*)\n", text, re.MULTILINE)
        if found is not None:
            text = text[: found.start()] + line + text[found.end() :]
        else:
            before, licence, behind = re.split(r"^(license = .*\n)", text, maxsplit=1, flags=re.MULTILINE)
            text = before + licence + line + behind
    return text


def _pinned(text: str, version: str) -> str:
    """With requirements of our own distributions in exactly this version."""
    return re.sub(r'"(anywire(?:-[\w-]+)?(?:\[[\w,-]+\])?)==[^";]+("|;)', rf'"\1=={version}\2', text)


def _with_extras(text: str, found: list[Distribution], version: str) -> str:
    head, _, rest = text.partition("[project.optional-dependencies]\n")
    section, mark, behind = rest.partition("\n[")
    own = [line for line in section.splitlines() if line.partition(" = ")[0] in KEPT_EXTRAS]
    lines = [*own, *(f"{key} = {_toml(value)}" for key, value in extras(found, version).items())]
    return f"{head}[project.optional-dependencies]\n" + "\n".join(lines) + "\n" + mark + behind


def extras(found: list[Distribution], version: str) -> dict[str, list[str]]:
    """The extras of ``anywire``: one for each distribution, and ``all``."""
    wanted: dict[str, list[str]] = {}
    whole = []
    for each in found:
        if each.is_core:
            continue
        later = LATER.get(each.name)
        wanted[later or each.extra] = [f"{each.name}[{later}]=={version}" if later else f"{each.name}=={version}"]
        if not later:
            marker = f"; {WHERE[each.name]}" if each.name in WHERE else ""
            whole.append(f"{each.name}=={version}{marker}")
    return {"all": whole, **dict(sorted(wanted.items()))}


def _toml(value: Any) -> str:
    """Strings, lists and tables of strings as TOML; what is long has a line for each entry."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    inner = [_toml(each) for each in value]
    short = f"[{', '.join(inner)}]"
    return short if len(short) <= _WIDTH else "[\n" + "".join(f"    {each},\n" for each in inner) + "]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument("--version", default="", help="the version of all distributions from now on")
    given = parser.parse_args()
    if given.version and not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", given.version):
        parser.error(f"expected a version such as 0.2.0 or 1.0.0rc1, found {given.version!r}")
    stale = {
        path: text
        for path, text in aligned(version=given.version).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    if given.check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"not aligned, run `python release/align.py`: {names}")
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
