"""Secrets of a plan, and whose machine it was: out of what a record keeps, and named when they are missing."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from anywire import secrecy
from anywire.config import MASK
from anywire.roles.assembly import masked

__all__ = ["hidden", "masked", "redact_logs", "redacted", "without_secrets"]


def redacted(text: str) -> str:
    """Without secrets, the home folder and the host's name."""
    text = secrecy.without_secrets(text)
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    text = re.sub(r"/(home|Users)/[^/\s:\"']+", "~", text)
    host = socket.gethostname()
    return re.sub(rf"\b{re.escape(host)}\b", "HOST", text) if host not in ("", "localhost") else text


def redact_logs(folder: Path) -> None:
    """Every file of ``folder`` anew, `redacted`."""
    for log in folder.iterdir():
        text = log.read_text(encoding="utf-8", errors="replace")
        if (clean := redacted(text)) != text:
            log.write_text(clean, encoding="utf-8")


def hidden(path: str, tree: Any) -> Iterator[str]:
    """The keys in ``tree``, which is at ``path``, whose values are masked."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from hidden(f"{path}.{key}" if path else key, value)
    elif isinstance(tree, list):
        for value in tree:
            yield from hidden(path, value)
    elif isinstance(tree, str) and MASK in tree:
        yield path


def without_secrets(text: str) -> str:
    """A YAML document with the secrets in it masked, and nothing else changed."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return text
    spans: list[tuple[int, int]] = []
    clear = yaml.safe_load(text)
    _differing(root, clear, masked(clear), spans)
    for start, end in sorted(set(spans), reverse=True):  # an alias leads to its anchor's place again
        text = text[:start] + json.dumps(MASK) + text[end:]
    return text


def _differing(node: yaml.Node, clear: Any, hidden: Any, spans: list[tuple[int, int]]) -> None:
    if isinstance(node, yaml.MappingNode) and isinstance(clear, dict):
        values = {key.value: value for key, value in node.value}
        for key in clear:
            if str(key) in values:
                _differing(values[str(key)], clear[key], hidden[key], spans)
    elif isinstance(node, yaml.SequenceNode) and isinstance(clear, list):
        for each, shown, masked_one in zip(node.value, clear, hidden, strict=True):
            _differing(each, shown, masked_one, spans)
    elif clear != hidden:
        spans.append((node.start_mark.index, node.end_mark.index))
