"""Hooks of mkdocs: the site is README.md and every page of the repository, with what they link to.

The pages link to each other, to files and to folders as they lie in the repository. So the site is built from a copy
with the same folders: a link to a folder leads to its README.md, or to a list of what is in it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "build" / "site-pages"
LINK = re.compile(r"(\[[^\]]*\]\()([^)#\s]+)((?:#[^)]*)?\))")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
PLACES = ("plugins", "examples", "deploy", "benchmarks")
"""Folders besides docs whose pages belong to the site."""
SECTIONS = {
    "For whom": "docs/for",
    "Start": "docs",
    "How to": "docs/how-to",
    "Reference": "docs/reference",
    "Explanation": "docs/explanation",
    "Results": "docs/results",
    "Packages": "plugins",
    "Examples": "examples",
    "Decisions": "docs/decisions",
}
"""Sections of the navigation by folder; every further page stands under Further."""
DEEP = ("docs/results", "plugins", "examples")
"""Folders whose section has the pages of folders in it too."""


def on_config(config: Any) -> Any:
    """Make the copy, and the navigation from what is in it."""
    made = make_copy()
    config["docs_dir"] = str(COPY)
    config["nav"] = navigation(made)
    return config


def pages() -> list[Path]:
    """Every page, relative to the repository."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for place in PLACES:
        found += (ROOT / place).rglob("*.md")
    return sorted(path.relative_to(ROOT) for path in found if not hidden(path.relative_to(ROOT)))


def hidden(path: Path) -> bool:
    return any(part.startswith(".") or part in ("node_modules", "build", "dist") for part in path.parts)


def make_copy(copy: Path = COPY) -> list[Path]:
    """Copy the pages and what they link to; the pages of the copy."""
    shutil.rmtree(copy, ignore_errors=True)
    found = pages()
    made = set(found)
    folders: set[Path] = set()
    for page in found:
        text = with_links(page, made, folders, copy)
        target = copy / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for folder in folders:
        target = copy / folder / "index.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(listing(folder, found), encoding="utf-8")
        made.add(folder / "index.md")
    return sorted(made)


def with_links(page: Path, made: set[Path], folders: set[Path], copy: Path) -> str:
    """The text of a page whose links to folders lead to a page. Files that it links to are copied."""

    def changed(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        inside = Path(os.path.normpath(page.parent / target))
        path = ROOT / inside
        if path.is_dir():
            name = "README.md" if (path / "README.md").is_file() else "index.md"
            if name == "index.md":
                folders.add(inside)
            return f"{before}{target.rstrip('/')}/{name}{after}"
        if path.is_file() and inside not in made and inside.suffix != ".md":
            (copy / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy / inside)
        return match[0]

    text = (ROOT / page).read_text(encoding="utf-8")
    parts, at = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(changed, text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, LINK.sub(changed, text[at:])])


def listing(folder: Path, found: Sequence[Path]) -> str:
    """A page for a folder that has none: its pages, and those of its folders."""
    inside = [page for page in found if folder in page.parents]
    lines = [f"# {folder.name.replace('-', ' ').capitalize()}", ""]
    lines += [f"- [{title_of(page)}]({page.relative_to(folder).as_posix()})" for page in inside]
    return "\n".join(lines) + "\n"


def title_of(page: Path) -> str:
    found = TITLE.search((ROOT / page).read_text(encoding="utf-8"))
    return found[1].replace("`", "") if found else page.stem


def navigation(made: Sequence[Path]) -> list[Any]:
    """All pages by section: those that README.md links to in its order, then the others."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    order = {os.path.normpath(target): number for number, (_, target, _) in enumerate(LINK.findall(readme))}
    left = [page for page in made if page != Path("README.md")]
    sections: list[Any] = [{"Anywire": "README.md"}]
    for title, folder in SECTIONS.items():
        inside = [
            page for page in left if page.parent == Path(folder) or (folder in DEEP and Path(folder) in page.parents)
        ]
        if title != "Decisions":
            inside.sort(key=lambda page: (page.name != "index.md", order.get(page.as_posix(), len(order)), page))
        left = [page for page in left if page not in inside]
        if inside:
            sections.append({title: list(entries(inside))})
    if left:
        sections.append({"Further": list(entries(left))})
    return sections


def entries(found: Sequence[Path]) -> Iterator[dict[str, str]]:
    for page in found:
        title = title_of(page) if (ROOT / page).is_file() else "All"
        yield {title: page.as_posix()}
