"""``anywire deliberate``. What the command needs beyond its options is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anywire.asked_fleet import GivenServer, asks_server

ENDINGS = (".md", ".html")
"""Of the file of a report: what it is written as."""

app = typer.Typer(
    name="deliberate",
    help="Ask several agents one question. They propose, criticise and score; a ranked answer comes of it. The service "
    "`deliberation` of the orchestrator does it, and goes on when this command is stopped. Exit status 1 without a "
    "winner.",
    subcommand_metavar="",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Options may stand behind the question.
    context_settings={"allow_interspersed_args": True},
)


@app.callback(invoke_without_command=True)
@asks_server
def deliberate(
    given: GivenServer,
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION",
            help="What to ask; - reads it from standard input. Leave it out to follow the deliberation of --id.",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", metavar="NAME", help="Role of the members. Default: the service's own.")
    ] = None,
    agents: Annotated[
        int | None,
        typer.Option("--agents", metavar="N", min=1, max=64, help="Members to ask. Default: the service's own."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Model of the members. Repeatable: they take the models in turn. Default: the service's own.",
        ),
    ] = None,
    council: Annotated[
        str | None, typer.Option("--council", metavar="NAME", help="Ask the members of this council.")
    ] = None,
    rubric: Annotated[
        str | None,
        typer.Option(
            "--rubric",
            metavar="NAME",
            help="Rubric to score by, or a file of your own (.yaml). Default: the service's own.",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds", metavar="N", min=0, max=10, help="Rounds of critique and revision. Default: the service's own."
        ),
    ] = None,
    requirements: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="TEXT", help="What an answer must have. Repeatable."),
    ] = None,
    quorum: Annotated[
        int | None,
        typer.Option("--quorum", metavar="N", min=1, help="Members who must have a scored proposal. Default: 1."),
    ] = None,
    aggregation: Annotated[
        str | None,
        typer.Option(
            "--aggregation",
            metavar="NAME",
            help="How scores become a ranking: borda, mean, median, approval or pairwise. Default: the service's own.",
        ),
    ] = None,
    synthesis: Annotated[
        bool, typer.Option("--synthesis", help="Have the winner make one answer of all proposals, beside its own.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Seconds for the whole. Default: the service's own."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Longest text of a member, in tokens.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="Id of the deliberation: asked again, it is the same one. Default: a new one."
        ),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the deliberation of --id.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the report to this file too: .md or .html."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask several agents one question."""
    if question is None and name is None:
        raise typer.BadParameter("expected a question, or --id ID to follow a deliberation", param_hint="QUESTION")
    if cancel and (name is None or question is not None):
        raise typer.BadParameter("expected --id ID and no question", param_hint="--cancel")
    if timeout is not None and not 0 < timeout <= 86_400:
        raise typer.BadParameter("expected seconds above 0 and at most 86400", param_hint="--timeout")
    if council is not None and (agents is not None or models):
        raise typer.BadParameter("its members are its own: leave --agents and --model out", param_hint="--council")
    if out is not None and (out.suffix.lower() not in ENDINGS or not out.parent.is_dir()):
        raise typer.BadParameter("expected FILE.md or FILE.html in a folder that exists", param_hint="--out")

    from anywire.deliberation_terms import Asked
    from anywire_service_deliberation import asked

    wanted = asked.Wanted(out=out, as_json=as_json, cancels=cancel)
    if question is not None:
        wanted.task = asked.read_question(question)
        wanted.request = Asked(
            role=role,
            members=asked.members_of(agents, models or ()),
            council=council,
            rubric=asked.read_rubric(rubric),
            rounds=rounds,
            requirements=requirements or None,
            quorum=quorum,
            aggregation=aggregation,
            synthesis=synthesis or None,
            timeout=timeout,
            max_tokens=max_tokens,
        )
    asked.deliberate(given, name, wanted)
