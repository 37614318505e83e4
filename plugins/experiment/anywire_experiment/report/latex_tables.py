"""Tables as LaTeX, which every engine compiles, pdfLaTeX too; they need the packages booktabs and graphicx."""

from __future__ import annotations

import re

from anywire_experiment.report.tables import Table

PACKAGES = r"\usepackage{booktabs,graphicx}"

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    # At the beginning of a row they would belong to the end of the one before.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "−": r"\ensuremath{-}",
    "µ": r"\ensuremath{\mu}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "≈": r"\ensuremath{\approx}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "→": r"\ensuremath{\rightarrow}",
    "…": r"\ldots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "°": r"\textdegree{}",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{NO-BREAK SPACE}": "~",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}


def tabular(table: Table, about: str) -> str:
    """A table environment; ``about`` begins its caption."""
    sides = "".join("l" if at == 0 or at in table.words else "r" for at in range(len(table.head)))
    rows = [" & ".join(escaped(each) for each in row) + r" \\" for row in table.rows]
    caption = ". ".join(each.rstrip(".") for each in (f"{about}: {table.title}", table.note) if each)
    return "\n".join(
        [
            r"\begin{table}",
            rf"  \caption{{{escaped(caption)}.}}",
            r"  \centering\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{{sides}}}",
            r"    \toprule",
            "    " + " & ".join(escaped(each) for each in table.head) + r" \\",
            r"    \midrule",
            *(f"    {row}" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
        ]
    )


def escaped(text: str) -> str:
    """As text on one line; a character that plain LaTeX does not know stands with its number."""
    return "".join(_escaped(each) for each in re.sub(r"[\t\r\n]", " ", text))


def _escaped(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if " " <= character <= "~":
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"
