"""Roles and rubrics: shipped ones, and those of a folder of yours, which come before them.

Each is a YAML file whose name is the role's or the rubric's: ``roles/DEV.yaml``, ``rubrics/clean-code.yaml``. A file
replaces the shipped one of the same name, whatever the case of its letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic

from anywire.config_layers import File
from anywire.errors import ConfigError, InvalidRequest
from anywire.near import nearest
from anywire.plugins import describe_validation
from anywire_service_deliberation.question import MAX_CRITERIA, Criterion, Role, Rubric

DEFAULT_ROLE = "DEV"
DEFAULT_RUBRIC = "answer"
"""For a question that names none."""
CUSTOM = "custom"
"""Name of a rubric that a request brings along."""

MAX_FILES = 256
"""Files of a folder."""
MAX_FILE_BYTES = 64 * 1024
MAX_PROMPT_CHARS = 20_000
MAX_DESCRIPTION_CHARS = 4000
MAX_NAME_CHARS = 64
MAX_POINTS = 100
"""Points between the lowest and the highest of a rubric."""

SHIPPED = Path(__file__).parent
NAME = re.compile(rf"[A-Za-z0-9][\w.-]{{0,{MAX_NAME_CHARS - 1}}}", re.ASCII)
ENDINGS = (".yaml", ".yml")

Description = Annotated[str, pydantic.Field(max_length=MAX_DESCRIPTION_CHARS)]
Made = TypeVar("Made", Role, Rubric)
Fault = tuple[tuple[int | str, ...], str]
"""Where something is wrong, and what."""


class Library:
    """The roles and rubrics that a question can name, keyed by their names in lower case."""

    def __init__(self, roles: Mapping[str, Role], rubrics: Mapping[str, Rubric]) -> None:
        self.roles = roles
        self.rubrics = rubrics

    @classmethod
    def load(cls, roles: Path | None = None, rubrics: Path | None = None) -> Library:
        """The shipped ones, and those of these folders before them. Raises `ConfigError` that names the file and the
        line of what is wrong."""
        return cls(
            _in_folder(SHIPPED / "roles", read_role) | _in_folder(roles, read_role),
            _in_folder(SHIPPED / "rubrics", read_rubric) | _in_folder(rubrics, read_rubric),
        )

    def role(self, name: str) -> Role:
        """The one of this name, whatever its case. Raises `InvalidRequest`."""
        return _named(self.roles, name, "role")

    def rubric(self, wanted: object) -> Rubric:
        """The one of this name, or the one that a request describes: ``{criteria: [{name, description, weight,
        anchors}], lowest, highest}``. Raises `InvalidRequest`."""
        if isinstance(wanted, str):
            return _named(self.rubrics, wanted, "rubric")
        if not isinstance(wanted, Mapping):
            raise InvalidRequest("rubric: expected the name of one, or an object with criteria", param="rubric")
        return described_rubric(wanted)


def read_role(path: Path) -> Role:
    """The role of this file. Raises `ConfigError`."""
    model, _ = _read(path, _Role)
    return Role(path.stem, model.prompt.strip(), model.description)


def read_rubric(path: Path) -> Rubric:
    """The rubric of this file. Raises `ConfigError`."""
    model, file = _read(path, _Rubric)
    for place, what in model.faults():
        raise ConfigError(f"{_path(place)}: {what} [{file.origin(place) or path}]")
    return model.made(path.stem)


def described_rubric(given: Mapping[str, Any]) -> Rubric:
    """The rubric that a request brings along. Raises `InvalidRequest` whose ``param`` is the member at fault."""
    try:
        model = _Rubric.model_validate(dict(given))
    except pydantic.ValidationError as error:
        place = _path(("rubric", *error.errors()[0]["loc"]))
        raise InvalidRequest(describe_validation(error, _Rubric, "rubric"), param=place) from None
    for loc, what in model.faults():
        place = _path(("rubric", *loc))
        raise InvalidRequest(f"{place}: {what}", param=place)
    return model.made(CUSTOM)


def spoken(name: str) -> str:
    """A criterion's name as it is compared: models write ``Code_Quality`` for ``code quality``."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class _Role(_Strict):
    description: Description = ""
    prompt: Annotated[str, pydantic.Field(min_length=1, max_length=MAX_PROMPT_CHARS)]

    @pydantic.field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("it is blank")
        return prompt


class _Criterion(_Strict):
    name: Annotated[str, pydantic.Field(max_length=MAX_NAME_CHARS)]
    description: Description = ""
    weight: Annotated[float, pydantic.Field(gt=0, le=1_000_000, allow_inf_nan=False)] = 1.0
    anchors: dict[int, Description] = {}

    @pydantic.field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.isprintable() or not any(letter.isalpha() for letter in name) or name != name.strip():
            raise ValueError("a name is one line, has a letter, and neither begins nor ends with a space")
        return name

    @pydantic.field_validator("anchors", mode="before")
    @classmethod
    def _points_of_json(cls, anchors: object) -> object:
        """The names of a JSON object's members are texts, a YAML mapping's are numbers."""
        if not isinstance(anchors, dict):
            return anchors
        if not all(re.fullmatch(r"[0-9]{1,4}", str(key)) for key in anchors):
            raise ValueError("what an anchor is for are points, a whole number")
        return {int(key): text for key, text in anchors.items()}


class _Rubric(_Strict):
    description: Description = ""
    lowest: Annotated[int, pydantic.Field(ge=0, le=1000)] = 1
    highest: Annotated[int, pydantic.Field(ge=1, le=1000)] = 5
    criteria: Annotated[list[_Criterion], pydantic.Field(min_length=1, max_length=MAX_CRITERIA)]

    def faults(self) -> Iterator[Fault]:
        if not self.lowest < self.highest <= self.lowest + MAX_POINTS:
            yield ("highest",), f"it must be 1 to {MAX_POINTS} more than lowest, which is {self.lowest}"
        seen: set[str] = set()
        for index, criterion in enumerate(self.criteria):
            name = spoken(criterion.name)
            if name in seen:
                yield ("criteria", index, "name"), f"two criteria are named {criterion.name!r}"
            seen.add(name)
            for points in criterion.anchors:
                if not self.lowest <= points <= self.highest:
                    place = ("criteria", index, "anchors", points)
                    yield place, f"the points are from {self.lowest} to {self.highest}"

    def made(self, name: str) -> Rubric:
        criteria = tuple(
            Criterion(each.name, each.description, each.weight, dict(sorted(each.anchors.items())))
            for each in self.criteria
        )
        return Rubric(name, criteria, self.lowest, self.highest, self.description)


_Model = TypeVar("_Model", _Role, _Rubric)


def _read(path: Path, model: type[_Model]) -> tuple[_Model, File]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if size > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has {size} bytes: the limit is {MAX_FILE_BYTES}")
    file = File(path)
    try:
        return model.model_validate(file.tree), file
    except pydantic.ValidationError as error:
        places = (file.origin(fault["loc"]) or str(path) for fault in error.errors())
        sentence = describe_validation(error, model, "")
        raise ConfigError(f"{sentence} [{'; '.join(dict.fromkeys(places))}]") from None


def _in_folder(folder: Path | None, read: Callable[[Path], Made]) -> dict[str, Made]:
    """What the files of a folder describe, by their names without regard to case."""
    if folder is None:
        return {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.name[0] != ".")
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be read: {error.strerror}") from error
    if len(paths) > MAX_FILES:
        raise ConfigError(f"{folder} has {len(paths)} files of YAML: the limit is {MAX_FILES}")
    found: dict[str, Made] = {}
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path} is not a file")
        if not NAME.fullmatch(path.stem):
            raise ConfigError(f"{path}: a name has letters, digits, '.', '_' and '-', {MAX_NAME_CHARS} at most")
        if path.stem.casefold() in found:
            raise ConfigError(f"{path}: another file has this name too, but for the case of its letters or its ending")
        found[path.stem.casefold()] = read(path)
    return found


def _named(known: Mapping[str, Made], name: str, param: str) -> Made:
    found = known.get(name.casefold())
    if found is None:
        near = nearest(name.casefold(), known)
        hint = f"did you mean {known[near].name!r}? " if near else ""
        names = ", ".join(sorted(each.name for each in known.values()))
        raise InvalidRequest(f"there is no {param} {name[:MAX_NAME_CHARS]!r}: {hint}known: {names}", param=param)
    return found


def _path(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place)
