"""Secrets are in no error, no log line and no shown configuration, wherever somebody has put them."""

from __future__ import annotations

import ast
import json
import logging
import random
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pydantic
import pytest
import yaml
from tests.long_form import SOAK

from anywire import errors
from anywire.config import Config
from anywire.config_layers import load
from anywire.errors import AnywireError, EngineFailed
from anywire.keys.key_text import new_key
from anywire.log_lines import JsonLines, TextLines
from anywire.plugins import KINDS, Plugins
from anywire.roles import assembly
from anywire.secrecy import is_plain, keep_secret, without_secrets

ROOT = Path(__file__).parents[2]
TOKEN = "hQ3xV9pL2mT8wY5k"
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIL\n-----END PRIVATE KEY-----\n"
LISTS = ("transports", "join", "gateways", "services")


def models_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models_in(each)


def places(model: type[pydantic.BaseModel], *above: str) -> Iterator[tuple[str, ...]]:
    """Every setting of a model, and of the models in it."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        for inner in models_in(field.annotation):
            yield from places(inner, *above, name)


def every_setting() -> Iterator[tuple[str, ...]]:
    yield from places(Config)
    plugins = Plugins()
    for kind in KINDS:
        for name in plugins.names(kind):
            if not plugins.distribution(kind, name).startswith("anywire"):
                continue
            section = (kind, name) if kind in LISTS else (kind[:-1],)
            yield from places(plugins.load(kind, name).Config, *section)


def tree_with(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    tree: Any = value
    for part in reversed(place):
        tree = {part: tree}
    found: dict[str, Any] = tree
    return found


def told_by(tmp_path: Path, text: str, plugins: Plugins | None = None, **sources: Any) -> str:
    """What is said of a configuration that is wrong, with all that led to it; empty when it is right."""
    file = tmp_path / "planted.yaml"
    file.write_text(text)
    try:
        config = load(file, **({"environment": {}} | sources))
        _, faults = assembly.effective(config, plugins or Plugins())
        return " ".join(faults)
    except AnywireError as error:
        return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("shape", ["alone", "in a list", "in a mapping", "in a URL"])
def test_a_secret_in_any_setting_is_not_repeated(tmp_path: Path, shape: str) -> None:
    value = {
        "alone": TOKEN,
        "in a list": [TOKEN],
        "in a mapping": {"x": TOKEN, "token": TOKEN},
        "in a URL": f"ftp://user:{TOKEN}@host",
    }[shape]
    settings, plugins = sorted(set(every_setting())), Plugins()
    assert len(settings) > 150
    settings = settings if SOAK or shape == "alone" else random.Random(shape).sample(settings, len(settings) // 10)
    told = {place: told_by(tmp_path, yaml.safe_dump(tree_with(place, value)), plugins) for place in settings}
    assert {place: text for place, text in told.items() if TOKEN in text} == {}
    assert sum(map(bool, told.values())) > len(settings) // 3, "most of them are refused"


@pytest.mark.parametrize(
    "token",
    [TOKEN, str(new_key()), str(new_key())[:-3], "sk-proj-Ab3dEf6hIj9kLm2n", "pA$$w0rd!x"],
    ids=["token", "key", "cut key", "key of OpenAI", "password"],
)
def test_a_secret_in_the_place_of_anything_is_not_repeated(tmp_path: Path, token: str) -> None:
    secret = token.split("-", 2)[-1]  # a key may have dashes in it
    texts = [
        token,
        f"[{token}]",
        f"transports: {token}",
        f"transports: [{{http: {token}}}]",
        f"gateways: {{{token}: 3}}",
        f"engine: {token}",
        f"plugins: [{token}]",
        f"dds: {token}",
        f"server: {{port: {token}}}",
        f"server: {{prot: {token}}}",
        f"access: {{keys: [{token}]}}",
        f"log_level: {token}",
        f"agent: {{slots: {token}}}",
        f"transports: {{http: {{tokn: {token}}}}}",
        f"transports: {{http: {{agent_addresses: '{token}'}}}}",
        f"transports: {{zeromq: {{agent_addresses: 'tcp://x:{token}@y'}}}}",
        f"transports: {{zeromq: {{secret_key: {token}}}}}",
        f"transports: {{grpc: {{token: {token}, tls_cert: x}}}}",
        f"engine: {{name: openai, api_key: {token}, api_key_env: X}}",
        f"engine: {{name: openai, base_url: '{token}'}}",
        f"engine: {{name: openai, api_key: {token}",
        f"engine: {{name: openai, api_key: *{token}}}",
        f"engine: {{name: openai, api_key: !{token} x}}",
        f"engine: {{name: openai, api_key: [{token}, 3]}}",
    ]
    for text in texts:
        assert secret not in told_by(tmp_path, text), text
    for key in ("server.port", "transports.http", "transports.zeromq.secret_key", "log_level", "engine.x"):
        assert secret not in told_by(tmp_path, "", settings={key: token}), key
        variable = "ANYWIRE_" + key.replace(".", "__").upper()
        for value in (token, f"[{token}", f"{{x: {token}"):
            assert secret not in told_by(tmp_path, "", environment={variable: value}), (variable, value)


def test_what_is_no_secret_is_told(tmp_path: Path) -> None:
    for plain in ("loud", "eth0", "tcp:/localhost:5560", "/etc/anywire.yaml", "192.168.1.300", "70000", ""):
        assert is_plain(plain)
    for secret in (TOKEN, "pA$$w0rd!x", "correcthorsebatterystaple", "user@host", "1234567", "ab " * 30):
        assert not is_plain(secret)
    told = told_by(tmp_path, "transports: {zeromq: {agent_addresses: 'tcp:/localhost:5560'}}")
    assert "'tcp:/localhost:5560' is no address" in told


def test_a_shown_configuration_has_no_secret_in_it(tmp_path: Path) -> None:
    file = tmp_path / "planted.yaml"
    key = new_key()
    file.write_text(
        yaml.safe_dump(
            {
                "transports": {"http": {"token": TOKEN}, "grpc": {"token": TOKEN}},
                "engine": {"name": "openai", "base_url": f"http://user:{TOKEN}@host/v1"},
                "agents": [{"engine": {"name": "openai", "api_key": TOKEN}}],
                "agent": {"specialization": f"by mistake: {key}"},
                "services": {"mine": {"api_keys": [TOKEN], "hook": f"https://{TOKEN}@host", "passphrase": TOKEN}},
                "plugins": [f"https://host/?x={key}"],
            }
        )
    )
    tree, _ = assembly.effective(load(file, environment={}), Plugins())
    assert TOKEN not in json.dumps(tree)
    assert key.secret not in json.dumps(tree)


# Errors and the log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no key aw-abcdefghij23-" + "x" * 43 + " here", "no key aw-abcdefghij23-*** here"),
        ("a key cut short: aw-abcdefghij23-" + "x" * 20, "a key cut short: aw-abcdefghij23-***"),
        ("a key with a typo: aw-ABCdefghij23-" + "x" * 43, "a key with a typo: aw-***"),
        ("join with aw1-" + "A" * 80, "join with aw1-***"),
        ("join with aw2-" + "A" * 80, "join with aw2-***"),
        ("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmVk is old", "*** is old"),
        ("http://ann:hunter2@host/v1", "http://ann:***@host/v1"),
        (f"https://{TOKEN}@host/v1", "https://***@host/v1"),
        ("ssh://git@host and https://host/@ann", "ssh://git@host and https://host/@ann"),
        (f"key {PEM} of x", "key *** \n of x".replace(" \n", "\n")),
        ("-----BEGIN EC PRIVATE KEY-----\nMC4CA", "***"),
        ("authorization: Bearer abcdefghijklmnopqrst", "authorization: Bearer ***"),
        ("Incorrect API key: sk-proj-abcdefghijklmnop.", "Incorrect API key: sk-***."),
        ("send it as `Authorization: Bearer KEY`", "send it as `Authorization: Bearer KEY`"),
        ("run `anywire keys create`", "run `anywire keys create`"),
    ],
)
def test_secrets_are_known_by_their_form(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(EngineFailed(text)) == shown


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_no_line_of_the_log_has_a_secret(form: logging.Formatter) -> None:
    key = new_key()
    keep_secret(TOKEN)
    try:
        try:
            raise ValueError(f"the plugin was given {TOKEN} and {key}\n{PEM}")
        except ValueError as error:
            raise RuntimeError(f"again: {key.secret!r} {key}") from error
    except RuntimeError:
        record = logging.LogRecord(
            "aiohttp", logging.DEBUG, "x.py", 1, "header %r: %s", ("authorization", f"Bearer {TOKEN}"), sys.exc_info()
        )
    record.fields = {"path": f"/v1?key={key}", "of": {"token": TOKEN, "pem": PEM}}
    line = form.format(record)
    assert TOKEN not in line
    assert f"{key}" not in line
    assert "MC4CAQ" not in line
    assert "aiohttp" not in line or json.loads(line)["fields" if "fields" in line else "logger"]


def test_every_error_keeps_secrets_out_of_its_sentence() -> None:
    keep_secret(TOKEN)
    for kind in errors.BY_CODE.values():
        error = kind(f"failed with {TOKEN}", members={"error": {"message": f"wrong key {TOKEN}", "n": [3, TOKEN]}})
        assert TOKEN not in str(error) + repr(error) + errors.to_wire(error)


def test_words_are_not_taken_for_secrets() -> None:
    for word in ("the", "another", "two-words"):
        keep_secret(word)
    assert without_secrets("the end of another of two-words") == "the end of another of two-words"


# Comparing

SECRETS = re.compile(r"(^|_)(token|secret|digest|password|mac|authorization|api_key|hmac)$")


PUBLIC = {
    "record.digest == found.digest",  # of two files of this user
    "offer.digest == self.digest",  # of a model
    "digest != self.link_key",  # of a certificate
    "known.digest != digest",  # of a request, under an id of the same sender
    "name not in secret",  # of a header
    "await part.digest() != layer.digest",  # of a file that was downloaded
    "digest == known.digest",  # of a model
    "digest == offered",  # of a model
    "weights.digest(Path(self.file)) != self.digest",  # of a model's file
    "entry.digest in weights.of(asked.model).values()",  # of a model
    "known.get(agent_id) != digest",  # of a model
    "theirs.digest != question.digest",  # of a question, under an id of the same tenant
    "space + word != token",  # of a text
    "record.token == self._record.token",  # who has a store: in a bucket that its owners read
}
"""Comparisons of what is called like a secret and is none that a stranger has sent."""


def compared(source: str) -> Iterator[tuple[int, str]]:
    """Where code compares something that is called like a secret, other than with a constant."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) for side in sides):
            continue
        for side in sides:
            name = side.attr if isinstance(side, ast.Attribute) else side.id if isinstance(side, ast.Name) else ""
            if SECRETS.search(name):
                yield node.lineno, ast.unparse(node)


def test_secrets_are_compared_in_constant_time() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for folder in ("core", "plugins", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for line, text in compared(path.read_text())
        if text not in PUBLIC
    }
    assert found == set()


def test_a_comparison_of_secrets_is_found() -> None:
    for code in ("a.token == b", "secret != other", "if api_key in known: x", "x = digest == self._digest"):
        assert list(compared(code)), code
    for code in ("token == ''", "hmac.compare_digest(token, b)", "token.kind == b", "key == other"):
        assert not list(compared(code)), code
