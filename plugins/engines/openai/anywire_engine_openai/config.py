"""What can be set of the engine ``openai``."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Literal, Self

import pydantic

from anywire.errors import ConfigError
from anywire.messages import Kind
from anywire.native_api import NativeApi
from anywire.secrecy import keep_secret, shown


class OpenAIConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    base_url: str = pydantic.Field(
        default="http://127.0.0.1:8000/v1",
        description="URL of the server, up to and with /v1 (vLLM http://host:8000/v1, Ollama http://host:11434/v1).",
    )
    api_key: pydantic.SecretStr | None = pydantic.Field(default=None, description="Key that is sent as bearer token.")
    api_key_env: str = pydantic.Field(default="", description="Environment variable that holds the key instead.")
    tls_ca: Path | None = pydantic.Field(
        default=None,
        description="File with the authority that the server's certificate comes from (PEM), or with that certificate. "
        "Default: the authorities known to all.",
    )
    models: list[str] | dict[str, str] = pydantic.Field(
        default_factory=list,
        description="Models to offer: a list of the server's, or a mapping of public names to the server's. "
        "Default: all.",
    )
    kinds: list[Kind] = pydantic.Field(
        default=["chat", "completion", "embedding"],
        min_length=1,
        description="Kinds of tasks to offer. Default: `chat`, `completion`, `embedding`, and `tokenize` and "
        "`detokenize` where the server is llama.cpp's or vLLM's. A model that the server lists with its type is "
        "offered for that alone.",
    )
    apis: list[NativeApi] = pydantic.Field(
        default_factory=list,
        description="APIs beside OpenAI's that the server speaks itself: `messages` for Anthropic's (Anthropic, vLLM, "
        "llama.cpp). Requests in them are passed on to it as they are; without it they are translated.",
    )
    default_max_tokens: int = pydantic.Field(
        default=0,
        ge=0,
        description="Tokens of the longest answer where the request names no limit. 0: the server decides.",
    )
    always_stream: bool = pydantic.Field(
        default=False,
        description="Ask the server to stream whole answers too, so that it notices when a client leaves "
        "(llama.cpp's needs it).",
    )
    resume: Literal["auto", "never", "last_message", "continue_final_message"] = pydantic.Field(
        default="auto",
        description="How the server is told to go on from the text of a stream whose agent was lost. "
        "`last_message`: it always continues a last message of the assistant (llama.cpp, Ollama). "
        "`continue_final_message`: it does when that member asks for it (vLLM, SGLang). `auto`: as its list of models "
        "says which server it is (llama.cpp, vLLM, SGLang), else not at all. `never`: streams of this server are not "
        "resumed.",
    )
    connect_timeout: float = pydantic.Field(default=5.0, gt=0, description="Seconds to connect, and to list models.")
    first_token_timeout: float = pydantic.Field(
        default=300.0,
        ge=0,
        description="Seconds that the server may say nothing before the first byte of its answer. 0: no limit.",
    )
    next_token_timeout: float = pydantic.Field(
        default=60.0, ge=0, description="Seconds that the server may say nothing within its answer. 0: no limit."
    )
    loading_timeout: float = pydantic.Field(
        default=120.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a task waits while the server says that it loads the model. 0: it fails at once.",
    )
    startup_timeout: float = pydantic.Field(
        default=60.0, gt=0, description="Seconds that the server may take to appear before the engine counts as failed."
    )
    refresh_interval: float = pydantic.Field(
        default=10.0, ge=0, description="Seconds between two looks at an idle server's models. 0: at start only."
    )

    @pydantic.field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")) or len(url.split("/")[2]) == 0:
            raise ValueError("must be an http:// or https:// address such as http://127.0.0.1:8000/v1")
        return url.rstrip("/")

    @pydantic.model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key is not None and self.api_key_env:
            raise ValueError("set api_key or api_key_env, not both")
        return self

    def key(self) -> str:
        """The key to send, empty for none. Raises `ConfigError` when the variable is not set, and when ``base_url`` has
        a user in it, which would be sent in its place."""
        if "@" in self.base_url.split("/")[2] and (self.api_key is not None or self.api_key_env):
            raise ConfigError("engine.base_url has a user in it, sent in place of a key: leave one of them out")
        if self.api_key_env:
            try:
                key = os.environ[self.api_key_env]
            except KeyError:
                raise ConfigError(
                    f"api_key_env names {shown(self.api_key_env)}, which is not in the environment"
                ) from None
            keep_secret(key)
            return key
        return self.api_key.get_secret_value() if self.api_key is not None else ""

    def tls(self) -> ssl.SSLContext | None:
        """What the certificate of the server must be; None for one that anybody takes. Raises `ConfigError` when the
        file does not serve."""
        if self.tls_ca is None:
            return None
        from anywire.listening.certificates import as_pem, client_context, read_certificates

        return client_context(as_pem(read_certificates(self.tls_ca)))

    def server_name(self, model: str) -> str:
        """What the server calls the model that the public calls ``model``."""
        return self.models.get(model, model) if isinstance(self.models, dict) else model

    def offered(self, found: list[str]) -> list[str]:
        """The public names of the models to offer, of those found on the server."""
        if not self.models:
            return found
        here = {*found, *(name.removesuffix(":latest") for name in found)}  # Ollama lists "name:latest"
        return [name for name in self.models if self.server_name(name) in here]
