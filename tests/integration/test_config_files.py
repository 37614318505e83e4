"""Files that `anywire init` writes, and the schema of configuration files that editors have."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.test_docs import DOCS, ROOT, blocks
from tests.long_form import examples
from typer.testing import CliRunner

from anywire.cli import app
from anywire.cli.config_file import Writer, fits
from anywire.config_layers import load
from anywire.errors import AnywireError
from anywire.plugins import Plugins
from anywire.roles.assembly import effective
from anywire.roles.config_schema import config_schema

PLUGINS = Plugins()
SCHEMA = config_schema(PLUGINS)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
NO_CONFIGURATION = ("workloads:", "sets:")
"""What the YAML of plans begins with, or has in it."""


class Done(NamedTuple):
    """What a command has done, as a process would tell."""

    returncode: int
    stdout: str
    stderr: str


def anywire(folder: Path, *arguments: str, **environment: str) -> Done:
    """Run a command in this process, which is quicker."""
    without: dict[str, str | None] = {key: None for key in os.environ if key.startswith("ANYWIRE_")}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with contextlib.chdir(folder):
            done = CliRunner().invoke(app, list(arguments), env={**without, "COLUMNS": "200", **environment})
    finally:
        root.handlers[:], root.level = handlers, level
    if isinstance(done.exception, AnywireError):
        return Done(1, done.stdout, f"error: {done.exception}")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def faults(tree: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(tree)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(SCHEMA)))
    assert references <= set(SCHEMA["$defs"])


def test_every_configuration_that_is_shown_fits_the_schema() -> None:
    pages = (
        ROOT / "README.md",
        *DOCS.rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "plugins").rglob("*.md"),
    )
    shown = {
        f"{page.relative_to(ROOT)}\n{block.text}": block.text
        for page in pages
        if DOCS / "results" not in page.parents
        for block in blocks(page)
        if block.language == "yaml" and not any(mark in block.text for mark in NO_CONFIGURATION)
    }
    for path in (ROOT / "examples" / "anywire.yaml", *(ROOT / "deploy").rglob("anywire*.yaml")):
        shown[str(path)] = path.read_text()
    assert len(shown) > 60
    wrong = {where: found for where, text in shown.items() if (found := faults(yaml.safe_load(text)))}
    assert not wrong, "\n\n".join(f"{where}\n{found}" for where, found in wrong.items())


@pytest.mark.parametrize(
    "text",
    [
        "sever: {}",
        "server: {port: many}",
        "transports: {dds: {domian: 3}}",
        "transports: []",
        "transports: [{dds: {domain: three}}]",
        "engine: {name: openai, base_uri: x}",
        "scheduler: {name: fifo, levels: 3}",
        "agents: [{engine: {name: synthetic, modles: [a]}}]",
        "services: {audit: {foldr: x}}",
        "pipeline: {deadline: soon}",
    ],
)
def test_what_the_configuration_refuses_the_schema_refuses(tmp_path: Path, text: str) -> None:
    assert faults(yaml.safe_load(text)), text


@pytest.mark.parametrize(
    "text",
    [
        "transports: dds,http",
        "transports: [dds, {http: {}}]",
        "transports: {dds: , of_a_stranger: {anything: 1}}",
        "engine: synthetic",
        "engine: {name: of_a_stranger, anything: 1}",
        "plugins: a.py,b.py",
        "server:",
        "gateways: []",
        "services: audit",
        "{}",
    ],
)
def test_what_may_be_written_in_other_ways_fits_too(tmp_path: Path, text: str) -> None:
    assert not faults(yaml.safe_load(text))
    (tmp_path / "a.yaml").write_text(text)
    load(tmp_path / "a.yaml", environment={})


NUMBERS = {"server.port": st.integers(0, 65535), "agent.slots": st.integers(1, 64), "shutdown_grace": st.floats(0, 99)}


@given(
    transports=st.lists(st.sampled_from(["memory", "zeromq", "http", "grpc"]), min_size=1, unique=True),
    scheduler=st.sampled_from(PLUGINS.names("schedulers")),
    selector=st.sampled_from(["least_loaded", "random", "weighted", "latency"]),
    services=st.lists(st.sampled_from(["audit", "background", "alerts", "conversations"]), unique=True),
    numbers=st.fixed_dictionaries({}, optional=NUMBERS),
)
@settings(max_examples=examples(5), deadline=None)
def test_a_file_that_explains_itself_says_what_was_chosen(
    transports: list[str], scheduler: str, selector: str, services: list[str], numbers: dict[str, Any]
) -> None:
    chosen: dict[str, Any] = {
        "transports": transports,
        "scheduler.name": scheduler,
        "selector.name": selector,
        "engine.name": "synthetic",
        "services": services,
        **numbers,
    }
    config = load(environment={}, settings=chosen)
    text = Writer(config, PLUGINS).text(["# head"])
    assert not faults(yaml.safe_load(text))
    fits(text, PLUGINS)
    assert same(text) == effective(config, PLUGINS)[0]
    assert same(uncommented(text)) == effective(config, PLUGINS)[0], "a default that is written out is another one"


def uncommented(text: str) -> str:
    """The file after each default was taken out of its comment."""
    return re.sub(r"^( *)#(?=\S)(?!!)", r"\1", text, flags=re.MULTILINE)


def same(text: str) -> dict[str, Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(text)
        return effective(load(path, environment={}), PLUGINS)[0]


def test_init_writes_a_file_that_loads_and_a_schema_that_it_names(tmp_path: Path) -> None:
    done = anywire(
        tmp_path, "init", "--transport", "zeromq", "--engine", "synthetic", "--model", "mine", "--service", "audit",
        "--port", "9000", "--set", "pipeline.deadline=30", ANYWIRE_SERVER__HOST="::1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "anywire.yaml").read_text()
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=./anywire.schema.json"
    schema = json.loads((tmp_path / "anywire.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))
    config = load(tmp_path / "anywire.yaml", environment={})
    assert config.server.port == 9000
    assert config.server.host == "127.0.0.1", "what the environment says is not written"
    assert config.engine.options["models"] == ["mine"]
    assert config.pipeline.deadline == 30
    assert [each.name for each in config.services] == ["audit"]
    shown = anywire(tmp_path, "config", "--config", "anywire.yaml")
    assert shown.returncode == 0, shown.stderr


def test_init_replaces_nothing_unless_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "anywire.yaml").write_text("mine")
    done = anywire(tmp_path, "init", "--engine", "synthetic", "--transport", "memory")
    assert done.returncode == 1
    assert "anywire.yaml is there already" in done.stderr
    assert (tmp_path / "anywire.yaml").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "anywire.yaml"]
    arguments = ("init", "--engine", "synthetic", "--transport", "memory", "--force", "--no-schema")
    assert anywire(tmp_path, *arguments).returncode == 0
    assert load(tmp_path / "anywire.yaml", environment={}).engine.name == "synthetic"
    assert list(tmp_path.iterdir()) == [tmp_path / "anywire.yaml"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--engine", "synthetik"), "no engine named 'synthetik'"),
        (("--transport", "memory", "--engine", "synthetic", "--set", "engine.wrods=3"), "wrods"),
        (("--engine", "synthetic", "--transport", "memory", "nowhere/a.yaml"), "cannot be written"),
    ],
)
def test_init_says_what_is_wrong_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = anywire(tmp_path, "init", *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_init_prints_and_schema_prints(tmp_path: Path) -> None:
    done = anywire(tmp_path, "init", "-", "--engine", "synthetic", "--transport", "memory")
    assert yaml.safe_load(done.stdout)["engine"]["name"] == "synthetic", done.stderr
    assert not list(tmp_path.iterdir())
    printed = json.loads(anywire(tmp_path, "schema").stdout)
    assert set(printed["properties"]) >= {"server", "transports", "pipeline"}
    assert "transports.memory" in printed["$defs"]


LITELLM = """
model_list:
  - model_name: fast
    litellm_params: {model: openai/qwen, api_base: "http://10.0.0.7:8000/v1", api_key: os.environ/VLLM_KEY, rpm: 60}
  - model_name: fast
    litellm_params: {model: hosted_vllm/qwen, api_base: "http://10.0.0.8:8000/v1"}
  - model_name: small
    litellm_params: {model: ollama_chat/smollm2, api_base: "http://10.0.0.9:11434"}
  - model_name: vectors
    litellm_params: {model: openai/embed, api_base: "http://10.0.0.7:8000/v1", api_key: sk-literal}
    model_info: {mode: embedding}
  - model_name: gpt
    litellm_params: {model: gpt-5}
  - model_name: far
    litellm_params: {model: bedrock/some.model}
router_settings: {routing_strategy: latency-based-routing, num_retries: 2, timeout: 30}
litellm_settings: {fallbacks: [{fast: [small]}], cache: true}
general_settings: {master_key: sk-1234}
"""


def test_init_begins_with_the_file_of_a_litellm_proxy(tmp_path: Path) -> None:
    (tmp_path / "litellm.yaml").write_text(LITELLM)
    done = anywire(tmp_path, "init", "--from", "litellm.yaml", "--transport", "memory", "--port", "4000")
    assert done.returncode == 0, done.stderr
    for told in ("provider bedrock", "rpm is a limit of a key", "anywire keys create", "cache"):
        assert told in done.stderr
    assert (tmp_path / "anywire.yaml").stat().st_mode & 0o077 == 0, "it holds a key"
    config = load(tmp_path / "anywire.yaml", environment={})
    engines = [each.engine.options for each in config.agents if each.engine is not None]
    assert engines == [
        {"base_url": "http://10.0.0.7:8000/v1", "models": {"fast": "qwen"}, "api_key_env": "VLLM_KEY"},
        {"base_url": "http://10.0.0.8:8000/v1", "models": {"fast": "qwen"}},
        {"base_url": "http://10.0.0.9:11434/v1", "models": {"small": "smollm2"}},
        {
            "base_url": "http://10.0.0.7:8000/v1",
            "models": {"vectors": "embed"},
            "api_key": "sk-literal",
            "kinds": ["embedding"],
        },
        {"base_url": "https://api.openai.com/v1", "models": {"gpt": "gpt-5"}, "api_key_env": "OPENAI_API_KEY"},
    ]
    assert config.selector.name == "latency"
    assert config.pipeline.max_attempts == 3
    assert config.pipeline.deadline == 30
    assert config.pipeline.fallbacks == {"fast": ("small",)}
    assert config.server.port == 4000
    assert not faults(yaml.safe_load((tmp_path / "anywire.yaml").read_text()))


UNUSUAL = """
model_list:
  - model_name: a
    litellm_params: {model: openai/a, api_base: "http://10.0.0.7:8000/v1", weight: 2}
  - model_name: b
    litellm_params: {model: openai/b, api_base: os.environ/B_BASE}
router_settings: {fallbacks: [{a: small}, {b: null}, {c: []}], allowed_fails: 3, cooldown_time: 30}
litellm_settings: {stream_timeout: 9, default_fallbacks: [a], drop_params: true}
"""


def test_what_of_a_litellm_proxy_is_not_carried_over_is_told(tmp_path: Path) -> None:
    (tmp_path / "litellm.yaml").write_text(UNUSUAL)
    done = anywire(tmp_path, "init", "--from", "litellm.yaml", "--transport", "memory")
    assert done.returncode == 0, done.stderr
    config = load(tmp_path / "anywire.yaml", environment={})
    assert config.pipeline.fallbacks == {"a": ("small",)}
    assert [each.engine.options["models"] for each in config.agents if each.engine is not None] == [{"a": "a"}]
    for told in ("weight", "api_base is in the environment", "allowed_fails: set pipeline.breaker.errors",
                 "cooldown_time", "stream_timeout", "default_fallbacks", "litellm_settings.drop_params"):  # fmt: skip
        assert told in done.stderr, told


@pytest.mark.parametrize("fallbacks", ["[{a: [b, c]}]", "{a: [b, c]}"])
def test_fallbacks_of_litellm_are_read_in_both_forms(tmp_path: Path, fallbacks: str) -> None:
    models = "model_list: [{model_name: a, litellm_params: {model: gpt-5}}]"
    (tmp_path / "litellm.yaml").write_text(f"{models}\nrouter_settings: {{fallbacks: {fallbacks}}}\n")
    done = anywire(tmp_path, "init", "--from", "litellm.yaml", "--transport", "memory")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "anywire.yaml", environment={}).pipeline.fallbacks == {"a": ("b", "c")}


@pytest.mark.parametrize(
    ("options", "is_private"),
    [
        (("--transport", "grpc", "--set", "transports.grpc.token=abcdefghijkl"), True),
        (("--service", "opentelemetry", "--set", "services.opentelemetry.headers={x: abcdefghijkl}"), True),
        (("--transport", "memory"), False),
    ],
)
def test_a_file_that_holds_a_secret_is_its_owners_alone(
    tmp_path: Path, options: tuple[str, ...], is_private: bool
) -> None:
    done = anywire(tmp_path, "init", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "anywire.yaml").stat().st_mode & 0o077 == (0 if is_private else 0o044)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: {a: {cmd: x}}", "anywire models import llama-swap"),
        ("model_list: [{model_name: a, litellm_params: {model: bedrock/b}}]", "no model of it can be served"),
        ("model_list: [3, {}, {model_name: [x]}]", "no model of it can be served"),
        ("a: [", "is no YAML"),
        ("- 1", "is no configuration of LiteLLM"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "other.yaml").write_text(text)
    done = anywire(tmp_path, "init", "--from", "other.yaml")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "anywire.yaml").exists()
