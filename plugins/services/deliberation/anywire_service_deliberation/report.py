"""A deliberation as a file to read: Markdown, or a page of HTML that needs nothing beside it.

Texts of models are strangers' texts. In Markdown they stand in fences, which nothing in them ends, and in HTML they are
escaped: nothing of them is obeyed or loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from anywire.deliberation_views import Whole
from anywire_service_deliberation.report_tables import SYNTHESIS, Table, dissent, facts, tables
from anywire_service_deliberation.views import one_line

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~&!])")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ddd; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: .75rem; border-radius: .3rem; }
pre.answer { border-left: .3rem solid #2b7a3f; } summary { cursor: pointer; }
.note { color: #666; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #161616; } pre { background: #242424; } th, td { border-color: #444; }
  .note { color: #999; }
}
"""


def markdown(state: Whole) -> str:
    """The report as Markdown."""
    return "\n".join(_markdown(state)) + "\n"


def html_page(state: Whole) -> str:
    """The report as a page of HTML."""
    return "\n".join(_html(state)) + "\n"


def clean(text: str) -> str:
    """``text`` without what controls a reader: line ends and tabs stay."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def ended_at(state: Whole) -> str:
    """When it ended or, before, when it was submitted; in UTC."""
    at = state.ended or state.submitted
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


# Markdown


def _markdown(state: Whole) -> Iterator[str]:
    yield f"# {_inline(one_line(state.task, 100))}"
    yield f"\nDeliberation {_inline(state.id)}, {ended_at(state)}\n"
    yield from (f"- {name}: {_inline(text)}" for name, text in facts(state))
    if state.winner:
        yield f"\n## Answer: the proposal of {_inline(state.winner)}\n"
        yield _fenced(state.answer)
        if told := dissent(state):
            yield f"\nDissent: {_inline(told)}"
    if state.synthesis:
        yield f"\n## Synthesis\n\n{SYNTHESIS}\n"
        yield _fenced(state.synthesis)
    for table in tables(state):
        yield f"\n## {table.title}\n"
        yield from _table(table)
    yield "\n## Question\n"
    yield _fenced(state.task)
    yield from (f"- {_inline(each)}" for each in state.requirements)
    yield "\n## Proposals"
    for proposal in state.proposals:
        for version in reversed(proposal.versions):
            yield f"\n### {_inline(proposal.member)}{f', revised in round {version.round}' if version.round else ''}\n"
            yield _fenced(version.text)
    if state.critiques:
        yield "\n## Critiques"
    for critique in state.critiques:
        who = f"{_inline(critique.member)} about the proposal of {_inline(critique.about)}"
        yield f"\n### Round {critique.round}: {who}\n"
        yield _fenced(critique.text)


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(_inline, table.columns))} |"
    yield f"|{'---|' * len(table.columns)}"
    yield from (f"| {' | '.join(map(_inline, row))} |" for row in table.rows)


def _inline(text: str) -> str:
    """A text on one line in which no mark of Markdown or HTML means anything."""
    return _MARKS.sub(r"\\\1", " ".join(clean(text).split()))


def _fenced(text: str) -> str:
    """A text between fences that are longer than any in it."""
    text = clean(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


# HTML


def _html(state: Whole) -> Iterator[str]:
    title = _text(one_line(state.task, 100))
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    # Whatever might slip in: nothing is run, and nothing is loaded.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{title}</h1>"
    yield f'<p class="note">Deliberation {_text(state.id)}, {_text(ended_at(state))}</p>'
    yield "<table>"
    yield from (f"<tr><th>{_text(name)}</th><td>{_text(text)}</td></tr>" for name, text in facts(state))
    yield "</table>"
    if state.winner:
        yield f"<h2>Answer: the proposal of {_text(state.winner)}</h2>"
        yield f'<pre class="answer">{_text(state.answer)}</pre>'
        if told := dissent(state):
            yield f"<p>Dissent: {_text(told)}</p>"
    if state.synthesis:
        yield f'<h2>Synthesis</h2><p class="note">{_text(SYNTHESIS)}</p><pre>{_text(state.synthesis)}</pre>'
    for table in tables(state):
        yield f"<h2>{_text(table.title)}</h2><table>"
        yield f"<tr>{''.join(f'<th>{_text(each)}</th>' for each in table.columns)}</tr>"
        yield from (f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
        yield "</table>"
    yield f"<h2>Question</h2><pre>{_text(state.task)}</pre>"
    if state.requirements:
        yield f"<ul>{''.join(f'<li>{_text(each)}</li>' for each in state.requirements)}</ul>"
    yield "<h2>Proposals</h2>"
    for proposal in state.proposals:
        for version in reversed(proposal.versions):
            revised = f", revised in round {version.round}" if version.round else ""
            yield _folded(f"{proposal.member}{revised}", version.text)
    if state.critiques:
        yield "<h2>Critiques</h2>"
    for critique in state.critiques:
        yield _folded(
            f"Round {critique.round}: {critique.member} about the proposal of {critique.about}", critique.text
        )
    yield "</body></html>"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{_text(title)}</summary><pre>{_text(text)}</pre></details>"


def _text(text: str) -> str:
    return escape(clean(text))
