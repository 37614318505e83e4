"""Where settings come from, which source wins, and what is said of a wrong one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anywire.config import Config, PluginChoice, named, replaced
from anywire.config_layers import load
from anywire.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples" / "anywire.yaml"


def from_yaml(tmp_path: Path, text: str, environment: dict[str, str] | None = None, **flags: Any) -> Config:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    return load(file, flags=flags, environment=environment or {})


def chosen(config: Config) -> list[tuple[str, dict[str, Any]]]:
    return [(each.name, each.options) for each in config.transports]


# Precedence

_layers = st.fixed_dictionaries({}, optional={name: st.integers(0, 65535) for name in ("flag", "environment", "file")})


@given(_layers)
def test_the_highest_source_that_sets_a_key_wins(
    tmp_path_factory: pytest.TempPathFactory, given: dict[str, int]
) -> None:
    file = tmp_path_factory.mktemp("config") / "a.yaml"
    file.write_text(yaml.safe_dump({"server": {"port": given["file"]}} if "file" in given else {}))
    config = load(
        file,
        flags={"server": {"port": given["flag"]}} if "flag" in given else {},
        environment={"ANYWIRE_SERVER__PORT": str(given["environment"])} if "environment" in given else {},
    )
    assert config.server.port == next(
        iter(given[name] for name in ("flag", "environment", "file") if name in given), None
    )
    assert config.server.host == "127.0.0.1"


def test_sources_are_merged_key_by_key(tmp_path: Path) -> None:
    config = from_yaml(
        tmp_path,
        "server: {host: '::1', port: 1}\npipeline: {window: 9}\n",
        {"ANYWIRE_SERVER__PORT": "2", "ANYWIRE_PIPELINE__RESUME": "true"},
        pipeline={"deadline": 3},
    )
    assert (config.server.host, config.server.port) == ("::1", 2)
    assert (config.pipeline.window, config.pipeline.resume, config.pipeline.deadline) == (9, True, 3.0)


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYWIRE_AGENT__SLOTS", "7")
    assert load().agent.slots == 7


def test_a_config_built_in_code_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYWIRE_AGENT__SLOTS", "7")
    assert Config().agent.slots == 1


def test_the_same_plugin_named_again_keeps_its_options_and_another_takes_none(tmp_path: Path) -> None:
    text = "engine: {name: openai, url: x}\nscheduler: {name: fifo, max_queue_size: 5, weight: 1}"
    assert from_yaml(tmp_path, text, engine={"name": "openai"}).engine.options == {"url": "x"}
    assert from_yaml(tmp_path, text, engine="synthetic").engine.options == {}
    assert from_yaml(tmp_path, text, {"ANYWIRE_ENGINE": "synthetic"}).engine.name == "synthetic"
    other = from_yaml(tmp_path, text, {"ANYWIRE_SCHEDULER__NAME": "edf"}).scheduler
    assert other.options == {"max_queue_size": 5}, "the bound is every scheduler's"
    assert from_yaml(tmp_path, text, {"ANYWIRE_ENGINE__URL": "y"}).engine.options == {"url": "y"}


def test_options_without_a_name_are_the_default_plugins(tmp_path: Path) -> None:
    text = "engine: {model: x}"
    assert from_yaml(tmp_path, text).engine.options == {"model": "x"}
    assert from_yaml(tmp_path, text, engine={"name": "synthetic"}).engine.options == {}


def test_flags_choose_transports_and_the_file_keeps_their_options(tmp_path: Path) -> None:
    text = "transports: {dds: {domain: 3}, http: {port: 1}}"
    assert chosen(from_yaml(tmp_path, text, transports="http")) == [("http", {"port": 1})]
    assert chosen(from_yaml(tmp_path, text, transports=["http", "dds"])) == [
        ("http", {"port": 1}),
        ("dds", {"domain": 3}),
    ]
    one = from_yaml(tmp_path, text, {"ANYWIRE_TRANSPORTS__DDS__DOMAIN": "4"})
    assert chosen(one) == [("dds", {"domain": "4"}), ("http", {"port": 1})]


def test_an_option_in_the_environment_leaves_the_default_transport() -> None:
    assert chosen(load(environment={"ANYWIRE_TRANSPORTS__DDS__DOMAIN": "4"})) == [("dds", {"domain": "4"})]


def test_single_keys_of_the_command_line_win_over_everything(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("server: {port: 1, host: '::1'}\ntransports: {dds: {domain: 3}, http: {}}\n")
    keys = {"server.port": 4, "transports.dds.domain": 5, "agents": [{"count": 2}], "log_level": "error"}
    config = load(file, flags={"server": {"port": 2}}, environment={"ANYWIRE_SERVER__PORT": "3"}, settings=keys)
    assert (config.server.port, config.server.host, config.log_level) == (4, "::1", "error")
    assert chosen(config) == [("dds", {"domain": 5}), ("http", {})]
    assert [entry.count for entry in config.agents] == [2]


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("servr.port", 1, ["--set servr.port", "did you mean server.port?"]),
        ("server.port", "abc", ["server.port", "'abc'", "[--set server.port]"]),
        ("transports.dds", 3, ["--set transports.dds: expected --set transports.dds.OPTION=value"]),
        ("server..port", 1, ["--set server..port"]),
    ],
)
def test_a_wrong_key_of_the_command_line_is_named(key: str, value: object, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment={}, settings={key: value})
    for part in parts:
        assert part in str(caught.value)


EXISTING = """
server: {host: 127.0.0.1, port: 8081}
dds: {domain: 7, participant_name: orchestrator}
scheduler: {max_queue_size: 50, priority_levels: 4}
"""
"""A file as it was written for the predecessor of this project."""


def test_the_keys_of_an_existing_file_are_taken(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, EXISTING)
    assert chosen(config) == [("dds", {"domain": 7, "participant": "orchestrator"})]
    assert (config.scheduler.name, config.scheduler.max_queue_size) == ("priority", 50)
    assert config.scheduler.options == {"max_queue_size": 50, "priority_levels": 4}
    assert config.server.port == 8081


def test_options_of_dds_are_options_of_that_transport_in_every_source(tmp_path: Path) -> None:
    assert chosen(from_yaml(tmp_path, EXISTING, {"ANYWIRE_DDS__DOMAIN": "8"}))[0][1]["domain"] == "8"
    assert chosen(load(environment={}, settings={"dds.participant_name": "me"})) == [("dds", {"participant": "me"})]
    assert chosen(from_yaml(tmp_path, EXISTING, transports="dds,http")) == [
        ("dds", {"domain": 7, "participant": "orchestrator"}), ("http", {}),
    ]  # fmt: skip
    assert chosen(from_yaml(tmp_path, "dds: {domain: 7}\ntransports: [http]")) == [("http", {})]
    assert chosen(from_yaml(tmp_path, "dds: {domain: 7, lease: 2}\ntransports: {http: {}, dds: {domain: 8}}")) == [
        ("http", {}), ("dds", {"domain": 8, "lease": 2}),
    ]  # fmt: skip
    assert chosen(from_yaml(tmp_path, "dds:")) == [("dds", {})]
    with pytest.raises(ConfigError, match=r"dds: expected the options of that transport \[.*line 1\]"):
        from_yaml(tmp_path, "dds: 3")


def test_a_scheduler_that_is_named_keeps_its_name(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, "scheduler: {name: mine, priority_levels: 3}").scheduler.name == "mine"
    config = from_yaml(tmp_path, EXISTING, scheduler="fifo")
    assert (config.scheduler.name, config.scheduler.options) == ("fifo", {"max_queue_size": 50})


@pytest.mark.parametrize("key", ["qqq", "x", "kafka"])
def test_no_hint_is_given_where_nothing_is_near(tmp_path: Path, key: str) -> None:
    wrong: list[Callable[[], Config]] = [
        lambda: from_yaml(tmp_path, f"{key}: {{x: 1}}"),
        lambda: from_yaml(tmp_path, f"server: {{{key}: 1}}"),
        lambda: load(environment={f"ANYWIRE_{key.upper()}__X": "1"}),
        lambda: load(environment={}, settings={f"{key}.x": 1}),
    ]
    for failing in wrong:
        with pytest.raises(ConfigError, match="known keys: ") as caught:
            failing()
        assert "did you mean" not in str(caught.value)


def test_gateways_are_the_default_none_or_those_named(tmp_path: Path) -> None:
    assert load(environment={}).gateways is None
    assert from_yaml(tmp_path, "gateways: []").gateways == []
    assert from_yaml(tmp_path, "gateways: []", {"ANYWIRE_GATEWAYS": "openai"}).gateways == [PluginChoice(name="openai")]
    assert from_yaml(tmp_path, "gateways: openai", gateways=None).gateways is None
    with_options = load(environment={"ANYWIRE_GATEWAYS__OPENAI__PORT": "1"}).gateways
    assert with_options == [PluginChoice(name="openai", options={"port": "1"})]


# Shapes

_names = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=8)
_options = st.dictionaries(_names, st.integers(), max_size=3)


@given(st.dictionaries(_names, _options, min_size=1, max_size=4))
def test_every_shape_of_transports_means_the_same(plugins: dict[str, dict[str, int]]) -> None:
    mapping = list(named(plugins).items())
    assert list(named([{name: options} for name, options in plugins.items()]).items()) == mapping
    assert list(named(list(plugins))) == list(named(",".join(plugins))) == list(plugins)


@given(st.dictionaries(_names, _options, min_size=1, max_size=4), _names, _options)
def test_a_config_survives_its_own_dump(
    plugins: dict[str, dict[str, int]], engine: str, options: dict[str, int]
) -> None:
    config = Config.model_validate({"transports": plugins, "engine": {**options, "name": engine}})
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert load(flags=config.model_dump(), environment={}) == config


@pytest.mark.parametrize(
    ("text", "transports"),
    [
        ("transports: dds", [("dds", {})]),
        ("transports: [dds, http]", [("dds", {}), ("http", {})]),
        ("transports: [{dds: {domain: 3}}, http]", [("dds", {"domain": 3}), ("http", {})]),
        ("transports: {dds: {domain: 3}, http: {}}", [("dds", {"domain": 3}), ("http", {})]),
        ("transports: {http: , dds: }", [("http", {}), ("dds", {})]),
        ("", [("dds", {})]),
    ],
)
def test_transports_in_yaml(tmp_path: Path, text: str, transports: list[tuple[str, dict[str, Any]]]) -> None:
    assert chosen(from_yaml(tmp_path, text)) == transports


def test_lists_in_the_environment() -> None:
    variables = {
        "ANYWIRE_TRANSPORTS": "http, dds",
        "ANYWIRE_PLUGINS": "a.py,b",
        "ANYWIRE_ENGINE__MODELS": "[x, y]",
        "ANYWIRE_ENGINE__NAME": "synthetic",
        "ANYWIRE_LOG_LEVEL": "DEBUG",
    }
    config = load(environment=variables)
    assert [each.name for each in config.transports] == ["http", "dds"]
    assert config.plugins == ["a.py", "b"]
    assert config.engine.options == {"models": ["x", "y"]}
    assert config.log_level == "debug"


def test_variables_of_others_are_left_alone() -> None:
    assert load(environment={"ANYWIRE_CONFIG": "x", "ANYWIRE_MODELDIR": "y", "HOME": "z"}) == Config()


# Errors


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("server:\n  prot: 3", ["unknown key 'server.prot'", "'port'", "a.yaml, line 2"]),
        ("servr: {}", ["unknown key 'servr'", "'server'", "line 1"]),
        ("\npipeline: {windw: 3}", ["'pipeline.windw'", "'window'", "line 2"]),
        ("server: {port: abc}", ["server.port", "'abc'", "integer", "line 1"]),
        ("server: {port: 70000}", ["server.port", "70000", "65535"]),
        ("server: 3", ["server", "(got 3)", "line 1"]),
        ("lease: {timeout: 0.1}", ["lease", "0.1 s", "heartbeat_interval", "0.25 s"]),
        ("lease: {timeout: .inf}", ["lease.timeout", "finite"]),
        ("agents: {timeout: 2}", ["agents.timeout is lease.timeout now", "ANYWIRE_LEASE__TIMEOUT", "line 1"]),
        ("\nagents: {heartbeat_interval: 2}", ["lease.heartbeat_interval", "line 2"]),
        ("agents: {engine: x}", ["agents: expected a list"]),
        ("agents: [{engine: x}, {cont: 2}]", ["agents.1.cont", "'count'"]),
        ("agents: [{count: 0}]", ["agents.0.count", "(got 0)"]),
        ("services: {x: 3}", ["the options of 'x' must be a mapping"]),
        ("agent: {slots: 0}", ["agent.slots", "(got 0)"]),
        ('agent: {id: "a\\e[2J"}', ["agent.id", "printable characters", "line 1"]),
        ('agent: {specialization: "a\\n"}', ["agent.specialization", "printable characters"]),
        ("agents: [{id: " + "x" * 257 + "}]", ["agents.0.id", "at most 256 characters"]),
        ("scheduler: {max_queue_size: 0}", ["scheduler.max_queue_size", "(got 0)"]),
        ("transports: []", ["transports", "at least one", "line 1"]),
        ("transports: 3", ["transports", "expected a name"]),
        ("transports: [dds, dds]", ["'dds' is named twice"]),
        ("transports: [3]", ["expected a name, found 3"]),
        ("transports: {dds: 3}", ["the options of 'dds' must be a mapping", "found 3"]),
        ("transports: ''", ["transports", "expected a name"]),
        ("log_level: loud", ["log_level", "'loud'", "'warning'"]),
        ("server: {port: 1}\nserver: {port: 2}", ["'server' is there twice", "line 2"]),
        ("- a", ["line 1", "mapping of keys"]),
        ("server:\n  port: [", ["a.yaml, line 2", "not valid YAML"]),
        ("server: {port: 1}\n  x: 1", ["line 2", "not valid YAML"]),
        ("a: \x00", ["a.yaml", "not valid YAML"]),
        ("server: !!python/object:os.system {}", ["line 1", "not valid YAML"]),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_yaml(tmp_path, text)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({"ANYWIRE_SERVER__PORT": "abc"}, ["server.port", "[ANYWIRE_SERVER__PORT]"]),
        ({"ANYWIRE_SERVER__PROT": "1"}, ["'server.prot'", "'port'", "[ANYWIRE_SERVER__PROT]"]),
        ({"ANYWIRE_SERVR__PORT": "1"}, ["ANYWIRE_SERVR__PORT", "did you mean ANYWIRE_SERVER__PORT?"]),
        ({"ANYWIRE_AGENTS__TIMEOUT": "2"}, ["ANYWIRE_LEASE__TIMEOUT", "[ANYWIRE_AGENTS__TIMEOUT]"]),
        ({"ANYWIRE_TRANSPORT": "http"}, ["ANYWIRE_TRANSPORT:", "did you mean ANYWIRE_TRANSPORTS?"]),
        ({"ANYWIRE_PORT": "9000"}, ["ANYWIRE_PORT:", "did you mean ANYWIRE_SERVER__PORT?"]),
        ({"ANYWIRE_LOGLEVEL": "debug"}, ["did you mean ANYWIRE_LOG_LEVEL?"]),
        ({"ANYWIRE_SERVER": "{port: ["}, ["ANYWIRE_SERVER", "begins like a YAML"]),
        ({"ANYWIRE_TRANSPORTS__DDS": "3"}, ["ANYWIRE_TRANSPORTS__DDS", "ANYWIRE_TRANSPORTS__DDS__OPTION=value"]),
        ({"ANYWIRE_PIPELINE__WINDOW": "1", "ANYWIRE_PIPELINE__WINDOW__X": "1"}, ["ANYWIRE_PIPELINE__WINDOW__X"]),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(variables: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment=variables)
    for part in parts:
        assert part in str(caught.value)


def unreadable(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    yield tmp_path / "missing.yaml", "there is no config file"
    yield tmp_path, "Is a directory"
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    yield tmp_path / "latin.yaml", "not UTF-8"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in unreadable(tmp_path):
        with pytest.raises(ConfigError, match=reason) as caught:
            load(path, environment={})
        assert str(path) in str(caught.value)


_keys = st.sampled_from([*Config.model_fields, "name", "port", "x", ""])
_leaves = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
_trees = st.recursive(_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3))


@given(_trees | st.dictionaries(st.sampled_from(["transports", "engine", "server"]), _trees))
def test_whatever_stands_in_a_file_loads_or_is_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    file = tmp_path_factory.mktemp("config") / "a.yaml"
    file.write_text(yaml.safe_dump(content))
    with contextlib.suppress(ConfigError):
        load(file, environment={})


def test_replacing_a_section_is_checked() -> None:
    assert replaced(Config(), agent={"slots": 3}).agent.slots == 3
    with pytest.raises(ConfigError, match=r"agent\.slots"):
        replaced(Config(), agent={"slots": 0})


# The example


def test_the_example_holds_every_key_with_its_default() -> None:
    assert load(EXAMPLE, environment={}) == Config()
    tree = yaml.safe_load(EXAMPLE.read_text())
    assert list(tree) == list(Config.model_fields)
    for name, section in Config().model_dump().items():
        if isinstance(section, dict):
            assert list(tree[name]) == list(section), name
