"""From a registry's entry and the engine's settings to a model that a host can run."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pydantic

from anywire.errors import AnywireError
from anywire.messages import Kind
from anywire.native_api import api_features
from anywire.plugins import describe_validation
from anywire_engine_models.config import ModelsConfig, ModelSettings
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.llama_cpp.command import LlamaSettings, llama_command
from anywire_engine_models.model_files import gguf, memory
from anywire_engine_models.model_files.whole import check_whole
from anywire_engine_models.processes.server_command import ServerCommand
from anywire_engine_models.registry.entry import Entry, EntrySettings
from anywire_engine_models.registry.model_paths import model_file
from anywire_engine_openai.resume import Way

DEFAULT_CONTEXT = 4096
"""Tokens of a slot where nothing is set, and the model can have as many."""
MIB = 2**20
LLAMA_FEATURES = {"json": True, "logprobs": True, "vision": False, "audio": False}
"""What is known of each model that llama.cpp runs, before its server tells more: no projector is loaded."""

LLAMA_KINDS: tuple[Kind, ...] = ("tokenize", "detokenize")
"""Kinds of tasks that llama.cpp answers for every model."""

_BRACES = re.compile(r"\{\{|\}\}|\{model\}")


class LaunchPlan(msgspec.Struct, frozen=True):
    """How a model's server is started, to be worked out anew at each start; what `HostedModel.launch` holds.
    ``context`` are tokens of each slot, 0 where the server alone knows them. ``server`` is `ModelsConfig.server`."""

    entry: Entry
    settings: ModelSettings
    context: int
    server: str

    @property
    def served_name(self) -> str:
        """The model's name towards its server."""
        return self.settings.served_name or self.entry.full_identifier

    def command(self) -> ServerCommand:
        """The command as it is now. Reads files. Raises `AnywireError` when it cannot work: the model's file is missing
        or not whole, or there is no llama.cpp."""
        settings = self.settings
        file = file_of(self.entry, settings)
        if settings.command is not None:
            return ServerCommand(
                arguments=tuple(_with_file(each, file) for each in settings.command),
                environment={name: _with_file(each, file) for name, each in settings.environment.items()},
                port=settings.port,
                health_path=settings.health_path,
                model_file="" if file is None or file.is_dir() else str(file),
            )
        assert file is not None
        check_whole(file)
        command = llama_command(file, settings=self._llama())
        return msgspec.structs.replace(
            command,
            environment={**command.environment, **settings.environment},
            health_path=settings.health_path,
        )

    def _llama(self) -> LlamaSettings:
        settings = self.settings
        return LlamaSettings(
            alias=self.served_name,
            server=self.server,
            slots=settings.slots,
            context=self.context,
            threads=settings.threads,
            batch_threads=settings.batch_threads,
            prompt_cache=settings.prompt_cache,
            embedding="embedding" in settings.kinds,
            rerank="rerank" in settings.kinds,
            chat_template=settings.chat_template,
            gpu_layers=settings.gpu_layers,
            port=settings.port,
            extra_args=tuple(settings.extra_args),
        )


class KnownModel(msgspec.Struct, frozen=True):
    """A model as the engine knows it. ``file`` is that of its weights, empty where there is none that can be read;
    ``digest`` names these, empty while nothing is known. ``context`` are tokens of each slot, 0 when unknown.
    ``resume`` is how its server goes on from a text, None when it does not. ``fault`` says what is wrong with its file
    as it was looked at; a start looks again."""

    hosted: HostedModel
    settings: ModelSettings
    served_name: str
    kinds: tuple[Kind, ...]
    features: dict[str, bool]
    resume: Way | None
    file: str = ""
    context: int = 0
    digest: str = ""
    fault: str = ""

    @property
    def can_go_on(self) -> bool:
        """Whether it goes on from the text of another server: where weights can be named they have to be."""
        can_be_named = bool(self.file) or self.settings.command is None
        return self.resume is not None and (bool(self.digest) or not can_be_named)


def known_model(entry: Entry, config: ModelsConfig) -> KnownModel:
    """The model of ``entry``. It reads the beginning of its file: call it on a thread. Raises `ValueError` for settings
    that cannot work; a file that cannot be read, or
    is not whole, is a `KnownModel.fault`."""
    settings = settings_of(entry, config)
    file: Path | None = None
    context, needed, fault = settings.context, 0, ""
    try:
        file = file_of(entry, settings)
        if file is not None and (settings.command is None or file.suffix == ".gguf"):
            found = gguf.read(file)
            context = context or min(found.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
            prompt_cache = (settings.prompt_cache or 0) * MIB if settings.command is None else 0
            needed = memory.needed(file, context, settings.slots, prompt_cache)
            if settings.command is None:
                check_whole(file)
    except AnywireError as error:
        fault = str(error)
    layer = entry.manifest.model_layer if entry.manifest is not None else None
    if settings.memory_bytes is not None:
        needed = settings.memory_bytes
    elif not needed and layer is not None:
        needed = layer.size
    if settings.command is None:
        context = context or DEFAULT_CONTEXT
    known = described(
        HostedModel(
            entry.full_identifier,
            memory_bytes=needed,
            slots=settings.slots,
            autostart=settings.autostart,
            on_demand=settings.on_demand,
            idle_ttl=settings.idle_ttl,
            pinned=settings.pinned,
            group=settings.group,
            restart=settings.restart,
            max_restarts=settings.max_restarts,
            start_timeout=settings.start_timeout,
            stop_grace=settings.stop_grace,
            device=settings.device,
            launch=LaunchPlan(entry, settings, context, config.server),
        )
    )
    is_file = file is not None and not file.is_dir()
    return msgspec.structs.replace(known, file=str(file) if is_file else "", fault=fault)


def described(hosted: HostedModel) -> KnownModel:
    """What is known of a model by how it is started; nothing is read."""
    plan: LaunchPlan = hosted.launch
    way = _way(plan.settings)
    return KnownModel(
        hosted,
        plan.settings,
        plan.served_name,
        kinds=tuple(dict.fromkeys((*plan.settings.kinds, *(LLAMA_KINDS if plan.settings.command is None else ())))),
        features={
            **(LLAMA_FEATURES if plan.settings.command is None else {}),
            **api_features(plan.settings.apis),
            "resume": way is not None,
        },
        resume=way,
        context=plan.context,
    )


def settings_of(entry: Entry, config: ModelsConfig) -> ModelSettings:
    """The settings of a model: those of ``engine.models`` over those of the registry over ``engine.defaults``. Raises
    `ValueError`."""
    name = entry.full_identifier
    own = {
        each: value for each in EntrySettings.__struct_fields__ if (value := getattr(entry.settings, each)) is not None
    }
    override = config.models.get(name)
    merged = config.defaults.model_dump(exclude_unset=True) | own
    merged |= override.model_dump(exclude_unset=True) if override is not None else {}
    if config.model == name:
        merged["autostart"] = True
    try:
        return ModelSettings.model_validate(merged)
    except pydantic.ValidationError as error:
        raise ValueError(describe_validation(error, ModelSettings, "settings")) from None


def file_of(entry: Entry, settings: ModelSettings) -> Path | None:
    """The file of a model's weights; None where a command finds the model itself. Raises `ConfigError`."""
    if settings.command is not None and not entry.model_file_path:
        return None
    return model_file(entry)


def _way(settings: ModelSettings) -> Way | None:
    if settings.resume == "auto":
        return "last_message" if settings.command is None else None
    return None if settings.resume == "never" else settings.resume


def _with_file(text: str, file: Path | None) -> str:
    """``text`` with the model's file in the place of ``{model}``, for a template whose other places stay."""
    path = str(file or "").replace("{", "{{").replace("}", "}}")
    return _BRACES.sub(lambda found: path if found[0] == "{model}" else found[0], text)
