"""From the configuration of a LiteLLM proxy to settings of Anywire: its servers become agents of the engine ``openai``.

What cannot be carried over is told, with the way to have it here where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from anywire.errors import ConfigError

ADDRESSES: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "text-completion-openai": "https://api.openai.com/v1",
    "ollama": "http://127.0.0.1:11434/v1",
    "ollama_chat": "http://127.0.0.1:11434/v1",
    "hosted_vllm": "",
    "vllm": "",
    "lm_studio": "http://127.0.0.1:1234/v1",
    "llamafile": "http://127.0.0.1:8080/v1",
    "litellm_proxy": "",
    "openai_like": "",
}
"""Providers whose servers speak OpenAI's API, with the address of one where none is given."""
KEYS: Mapping[str, str] = {"openai": "OPENAI_API_KEY", "text-completion-openai": "OPENAI_API_KEY"}
"""Variables that LiteLLM reads where an entry has no key."""
SELECTORS: Mapping[str, str] = {
    "simple-shuffle": "random",
    "least-busy": "least_loaded",
    "latency-based-routing": "latency",
}
KINDS: Mapping[str, str] = {"chat": "chat", "completion": "completion", "embedding": "embedding"}
OF_PARAMETERS = ("model", "api_base", "api_key", "rpm", "tpm")
OF_ROUTER = (
    "routing_strategy", "num_retries", "timeout", "fallbacks", "redis_host", "redis_url", "context_window_fallbacks"
)  # fmt: skip
OF_LIBRARY = (
    "num_retries", "request_timeout", "fallbacks", "success_callback", "failure_callback", "callbacks", "cache",
    "context_window_fallbacks",
)  # fmt: skip
"""Keys of which something is said here; the others are told as they are."""
HERE: Mapping[str, str] = {
    "allowed_fails": ": set pipeline.breaker.errors",
    "cooldown_time": ": set pipeline.breaker.recovery, in seconds",
    "stream_timeout": ": set pipeline.next_token_timeout, in seconds",
    "default_fallbacks": ": name the others of each model in pipeline.fallbacks",
}
_FROM_ENVIRONMENT = "os.environ/"


class Converted(NamedTuple):
    """``settings`` are keys with dots, ``left`` a sentence for each part that is not carried over."""

    settings: dict[str, Any]
    left: list[str]


class _Server(NamedTuple):
    address: str
    key: str
    key_variable: str
    kind: str


def is_litellm(tree: object) -> bool:
    """Whether this is the file of a LiteLLM proxy."""
    return isinstance(tree, Mapping) and isinstance(tree.get("model_list"), list)


def converted(tree: Mapping[str, Any]) -> Converted:
    """What the file says, as settings. Raises `ConfigError` when none of its models can be served."""
    left: list[str] = []
    agents = list(_agents(tree["model_list"], left))
    if not agents:
        raise ConfigError(f"no model of it can be served: {'; '.join(left) or 'model_list is empty'}")
    settings: dict[str, Any] = {"engine.name": "openai", "agents": agents}
    router, library = _section(tree, "router_settings"), _section(tree, "litellm_settings")
    strategy = str(router.get("routing_strategy") or "")
    if strategy in SELECTORS:
        settings["selector.name"] = SELECTORS[strategy]
    elif strategy:
        left.append(f"routing_strategy {strategy}: choose a selector, `anywire plugins` lists them")
    retries = router.get("num_retries", library.get("num_retries"))
    if _is_number(retries):
        settings["pipeline.max_attempts"] = int(retries) + 1
    seconds = router.get("timeout", library.get("request_timeout"))
    if _is_number(seconds) and seconds > 0:
        settings["pipeline.deadline"] = float(seconds)
    fallbacks = dict(_fallbacks(router.get("fallbacks") or library.get("fallbacks") or []))
    if fallbacks:
        settings["pipeline.fallbacks"] = fallbacks
    left += _not_carried(tree, router, library)
    for section, found, read in (("router_settings", router, OF_ROUTER), ("litellm_settings", library, OF_LIBRARY)):
        left += [f"{section}.{key}{HERE.get(str(key), '')}" for key in found if key not in read]
    return Converted(settings, left)


def _agents(entries: list[Any], left: list[str]) -> Iterator[dict[str, Any]]:
    """An agent for each server, with the models that it serves. One name at two servers is two agents."""
    servers: dict[_Server, dict[str, str]] = {}
    for entry in entries:
        parameters = _section(entry, "litellm_params") if isinstance(entry, Mapping) else {}
        name, model = (str(part or "") for part in (_member(entry, "model_name"), parameters.get("model")))
        if not name or not model:
            left.append("an entry of model_list without model_name or litellm_params.model")
            continue
        if "*" in name:
            left.append(f"model {name}: name its models, or leave `models` of an agent out to offer all that it lists")
            continue
        provider, slash, inner = model.partition("/")
        if not slash and not parameters.get("api_base"):
            provider, inner = "openai", model
        elif provider not in ADDRESSES:
            left.append(f"model {name}: provider {provider} does not speak OpenAI's API at a server of its own")
            continue
        address = str(parameters.get("api_base") or ADDRESSES[provider]).rstrip("/")
        if not address:
            left.append(f"model {name}: it has no api_base")
            continue
        if address.startswith(_FROM_ENVIRONMENT):
            left.append(f"model {name}: its api_base is in the environment, write it as base_url of an agent")
            continue
        if provider.startswith("ollama") and not address.endswith("/v1"):
            address += "/v1"
        key = str(parameters.get("api_key") or "")
        variable = key.removeprefix(_FROM_ENVIRONMENT) if key.startswith(_FROM_ENVIRONMENT) else ""
        if not key and not parameters.get("api_base"):
            variable = KEYS.get(provider, "")
        kind = KINDS.get(str(_section(entry, "model_info").get("mode") or ""), "")
        server = _Server(address, "" if variable else key, variable, kind)
        offered = servers.setdefault(server, {})
        if offered.get(name, inner) != inner:
            left.append(f"model {name}: {address} has it under two names, of which {offered[name]} counts")
            continue
        offered[name] = inner
        left += [f"model {name}: {each} of its litellm_params" for each in parameters if each not in OF_PARAMETERS]
        left += [f"model {name}: {each} is a limit of a key here (anywire keys create --{option})"
                 for each, option in (("rpm", "requests-per-minute"), ("tpm", "tokens-per-day"))
                 if parameters.get(each)]  # fmt: skip
    for server, models in servers.items():
        options: dict[str, Any] = {"name": "openai", "base_url": server.address, "models": models}
        if server.key:
            options["api_key"] = server.key
        if server.key_variable:
            options["api_key_env"] = server.key_variable
        if server.kind:
            options["kinds"] = [server.kind]
        yield {"engine": options, "slots": 8}


def _fallbacks(given: object) -> Iterator[tuple[str, list[str]]]:
    for each in given if isinstance(given, list) else (given,):
        if isinstance(each, Mapping):
            for name, others in each.items():
                named = [str(one) for one in (others if isinstance(others, list) else [others]) if one]
                if named:
                    yield str(name), named


def _not_carried(tree: Mapping[str, Any], router: Mapping[str, Any], library: Mapping[str, Any]) -> Iterator[str]:
    general = _section(tree, "general_settings")
    if general.get("master_key") or general.get("database_url"):
        yield "keys of clients: `anywire keys create` makes them, `--keys FILE` uses them"
    if library.get("success_callback") or library.get("failure_callback") or library.get("callbacks"):
        yield "callbacks: the service `audit`, metrics at /metrics, events at /v1/events"
    if library.get("cache"):
        yield "cache: the service `cache` (pip install anywire-service-cache)"
    if router.get("redis_host") or router.get("redis_url"):
        yield "Redis: an orchestrator needs none"
    if router.get("context_window_fallbacks") or library.get("context_window_fallbacks"):
        yield "context_window_fallbacks: another model answers where one fails, not where a prompt is too long"


def _section(tree: object, key: str) -> Mapping[str, Any]:
    found = _member(tree, key)
    return found if isinstance(found, Mapping) else {}


def _member(tree: object, key: str) -> Any:
    return tree.get(key) if isinstance(tree, Mapping) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6
