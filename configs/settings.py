"""Settings files: read, overridden, checked, compared."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from usermirror_gym.configs import preset_names, read_preset
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.foreign import file_name, masked, parse_yaml

Model = TypeVar("Model")
AtLeast0 = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Settings cannot be changed, and those that do not exist are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _folder_name(name: str) -> str:
    if not file_name(name):
        raise ValueError(f"must be usable as a folder, got {name!r}")
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


def read_settings(
    kind: str, name_or_path: str | Path, overrides: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of a preset of ``configs/<kind>`` by name, or of a YAML file by path.

    Args:
        overrides: dotted names and values: ``{"scenes.train": 100, "stages.0.epochs": 2}``.

    Raises:
        UnknownNameError: no such preset; suggests the nearest.
        ConfigError: not a YAML mapping, or an override of something that is no group of settings.
    """
    content = _read(kind, name_or_path)
    for dotted, value in (overrides or {}).items():
        # A copy: a later override may change what an earlier one brought.
        _override(content, dotted, deepcopy(value))
    return content


def read_as(
    model: type[Model],
    kind: str,
    name_or_path: str | Path,
    overrides: dict[str, Any] | None = None,
) -> Model:
    """The checked settings of a preset or a YAML file; see :func:`read_settings` for the arguments.

    Raises:
        UnknownNameError: no such preset or setting; suggests the nearest.
        ConfigError: not YAML, or a value that cannot be used; names the setting.
    """
    return validated(model, read_settings(kind, name_or_path, overrides), str(name_or_path))


def validated(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """An instance of a pydantic model, or of a dataclass.

    Args:
        where: how messages call the settings.

    Raises:
        UnknownNameError: a setting that does not exist; suggests the nearest.
        ConfigError: a value that cannot be used; names the setting.
    """
    try:
        checked: Model = TypeAdapter(model).validate_python(values)
        return checked
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            beside = first["loc"][:-1]
            known = [".".join(map(str, (*beside, name))) for name in names_at(model, beside)]
            raise UnknownNameError(f"setting of {where}", place, known) from error
        at = f"{where}, {place}" if place else where
        ours = first.get("ctx", {}).get("error")
        if isinstance(ours, UnknownNameError):
            raise ours from error
        if ours is not None:
            raise ConfigError(f"{at}: {ours}") from error
        given = masked({place: first["input"]})[place]
        raise ConfigError(f"{at}: {first['msg']}, got {given!r}") from error


def written(settings: object) -> dict[str, Any]:
    """The settings of a model or a dataclass as files hold them: plain types, secrets masked."""
    plain = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    return dict(masked(plain))


def differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted name, old and new value of what is not the same in two settings."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({str(i): v for i, v in enumerate(values)} for values in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        parts = [differences(old.get(k), new.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [d for part in parts for d in part]
    return [] if old == new else [(name, old, new)]


def _read(kind: str, name_or_path: str | Path) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        return read_preset(kind, str(name_or_path))
    if not path.is_file():
        # A path into the sources of this package also works once it is installed.
        if path.parent.as_posix() == f"configs/{kind}" and path.stem in preset_names(kind):
            return read_preset(kind, path.stem)
        raise ConfigError(
            f"there is no file {path}; presets: {', '.join(preset_names(kind))} (without .yaml)"
        )
    try:
        content = parse_yaml(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a YAML mapping, got {type(content).__name__}")
    if odd := [name for name in content if not isinstance(name, str)]:
        raise ConfigError(f"{path}: settings must have texts as names, got {odd[0]!r}")
    return content


def _override(content: dict[str, Any], dotted: str, value: Any) -> None:
    group: Any = content
    *keys, last = dotted.split(".")
    for key in keys:
        if isinstance(group, dict) and group.get(key) is None:
            group[key] = {}
        group = group[_place(group, key, dotted)]
        if not isinstance(group, dict | list):
            raise ConfigError(f"{dotted}: {key!r} is not a group of settings")
    group[_place(group, last, dotted)] = value


def _place(values: dict[str, Any] | list[Any], key: str, dotted: str) -> int | str:
    if isinstance(values, dict):
        return key
    if not key.isdecimal() or int(key) >= len(values):
        raise ConfigError(
            f"{dotted}: {key!r} must be a number from 0 to {len(values) - 1}, the place in a list"
        )
    return int(key)


def names_at(model: type[Any], place: Iterable[int | str]) -> list[str]:
    """Names of the settings of a model, or of the one that stands at ``place`` within it."""
    if is_dataclass(model):
        return [f.name for f in fields(model)]
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a type holds, if it holds one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_inner_model(part) for part in getattr(annotation, "__args__", ())]
    return next((model for model in found if model), None)
