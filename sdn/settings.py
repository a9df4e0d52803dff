# SPDX-License-Identifier: Apache-2.0
"""Settings of a daemon: declared once as a typed struct, taken from flags, environment and one TOML file.

    class AgentSettings(settings.Settings, frozen=True, kw_only=True):
        listen_address: Annotated[str, Meta(description="Address and port to serve on.")] = "127.0.0.1:6653"
        mtu: Annotated[int, Meta(description="Pods' MTU; 0 finds it from the uplink.", ge=0, le=65535)] = 0
        controllers: Annotated[list[str], Meta(description="Controllers, in order of preference.")] = []

    config = settings.load(AgentSettings, "sdn-agent", sys.argv[1:], os.environ)

`from sdn.settings import Meta` is msgspec's; its `ge`, `le`, `min_length`, `pattern` and the like are
enforced. From the name `listen_address` everything else follows: flag `--listen-address`, environment
SDN_AGENT_LISTEN_ADDRESS, TOML key `listen_address`. Each source overrides those after it: flags, environment,
TOML file, default. A field without a default must be given by one of them.

- bool: `--debug`, `--no-debug`, `--debug=false`; in the environment true/false/1/0.
- list or tuple: `--controllers a,b` or the flag repeated; `a,b` in the environment; a TOML array.
- `Literal[...]` and enums are choices. `X | None`: an empty text in flag or environment means None.
- `pathlib.Path`, and addresses, interfaces and networks of `ipaddress`, are written as text.
- What depends on several fields is checked in the class's `__post_init__`, which raises ValueError.

The TOML file is `--config FILE`, or SDN_AGENT_CONFIG, or /etc/sdn/agent.toml if that exists (the program's
name without `sdn-`). Nothing is ignored: a TOML key, an environment variable with the program's prefix or a
flag that is no setting is refused, as is a value that does not fit. `load` then writes one line to stderr,
with the setting's name and where it came from, and exits with code 2; `read` raises SettingsError instead.
`load` answers `--help` and `--version` too.
"""

import argparse
import difflib
import enum
import ipaddress
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from sdn import logs
from sdn.version import VERSION

__all__ = ["Field", "Meta", "Settings", "SettingsError", "as_written", "describe", "load", "read"]

EXIT_USAGE: Final = 2
"""Exit code of a daemon whose settings are wrong; the same as for a wrong command line elsewhere."""


class SettingsError(ValueError):
    """A setting is unknown, missing or invalid; the text is one line that names it and its source."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every daemon can be told. Subclass with `frozen=True, kw_only=True`, each field with Meta."""

    log_level: Annotated[
        str,
        Meta(
            description="Level of what is logged: debug, info, warning, error or critical; "
            "NAME=LEVEL after a comma for single loggers. Read again on SIGHUP."
        ),
    ] = "info"

    def __post_init__(self) -> None:
        try:
            logs.parse_levels(self.log_level)
        except ValueError as problem:
            raise ValueError(f"log_level: {problem}") from None


S = TypeVar("S", bound=Settings)


class Field(msgspec.Struct, frozen=True):
    """One setting, with every name that it goes by."""

    name: str
    type: Any
    description: str
    flag: str
    environment: str
    required: bool
    default: object


def describe(cls: type[Settings], prog: str) -> list[Field]:
    """Every setting of a class, in the order of declaration, those common to all daemons last.

    TypeError if a field lacks a description: that is a mistake in the class.
    """
    fields = []
    for info in msgspec.structs.fields(cls):
        description = next((m.description for m in _metadata(info.type) if m.description), None)
        if not description:
            raise TypeError(
                f"{cls.__name__}.{info.name} needs a description: Annotated[type, Meta(description=...)]"
            )
        default: object = None
        if info.default is not msgspec.NODEFAULT:
            default = info.default
        elif info.default_factory is not msgspec.NODEFAULT:
            default = info.default_factory()
        fields.append(
            Field(
                name=info.name,
                type=info.type,
                description=" ".join(description.split()),
                flag="--" + info.name.replace("_", "-"),
                environment=_prefix(prog) + info.name.upper(),
                required=info.required,
                default=default,
            )
        )
    common = {info.name for info in msgspec.structs.fields(Settings)}
    return sorted(fields, key=lambda field: field.name in common)


def load(cls: type[S], prog: str, argv: Sequence[str], environ: Mapping[str, str]) -> S:
    """As `read`, but a mistake is one line on stderr and SystemExit(2)."""
    try:
        return read(cls, prog, argv, environ)
    except SettingsError as problem:
        print(f"{prog}: {problem}", file=sys.stderr)  # noqa: T201 - logs are not set up before settings are known
        raise SystemExit(EXIT_USAGE) from None


def read(cls: type[S], prog: str, argv: Sequence[str], environ: Mapping[str, str]) -> S:
    """Settings from all sources; SettingsError on a mistake, SystemExit(0) for --help and --version."""
    fields = {field.name: field for field in describe(cls, prog)}
    flags = _from_flags(fields, prog, argv)
    variables = _from_environment(fields, prog, environ)
    config_flag = flags.pop("config", None)
    config_variable = variables.pop("config", None)
    values: dict[str, object] = {}
    if config_flag is not None:
        values |= _from_file(fields, Path(str(config_flag)), "flag --config")
    elif config_variable is not None:
        values |= _from_file(fields, Path(str(config_variable)), f"environment {_prefix(prog)}CONFIG")
    elif (usual := _usual_file(prog)).exists():
        values |= _from_file(fields, usual, "the usual place")
    for name, text in variables.items():
        values[name] = _from_text(fields[name], text, f"environment {fields[name].environment}")
    for name, text in flags.items():
        values[name] = _from_text(fields[name], text, f"flag {fields[name].flag}")
    for field in fields.values():
        if field.required and field.name not in values:
            raise SettingsError(
                f"setting {field.name} is required: give {field.flag}, {field.environment} or the TOML key"
            )
    try:
        return cls(**values)  # type: ignore[arg-type]  # each value was converted to its field's type
    except ValueError as problem:  # from __post_init__, which names the fields it compared
        raise SettingsError(f"setting {' '.join(str(problem).split())}") from None


# --- sources ------------------------------------------------------------------------------------------------


def _from_flags(fields: Mapping[str, Field], prog: str, argv: Sequence[str]) -> dict[str, object]:
    parser = _Parser(
        prog=prog,
        allow_abbrev=False,
        add_help=True,
        argument_default=argparse.SUPPRESS,
        usage=argparse.SUPPRESS,
    )
    parser.description = (
        f"Usage: {prog} [--NAME VALUE ...]\n\n"
        "Each setting is a flag, an environment variable and a key of one TOML file; the first that\n"
        "gives it wins. Lists are written with commas."
    )
    parser.formatter_class = _Help
    parser.add_argument(
        "--version", action="version", version=f"{prog} {VERSION}", help="print the version and exit"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file with settings.\n[default: {_usual_file(prog)} if it exists] [{_prefix(prog)}CONFIG]",
    )
    for field in fields.values():
        default = "required" if field.required else f"default: {as_written(field.default)}"
        text = f"{field.description}\n[{default}] [{field.environment}]".replace("%", "%%")
        if _is_bool(field.type):
            parser.add_argument(
                field.flag, dest=field.name, nargs="?", const="true", metavar="true|false", help=text
            )
            off = "--no-" + field.name.replace("_", "-")
            parser.add_argument(
                off, dest=field.name, action="store_const", const="false", help=argparse.SUPPRESS
            )
        elif _is_list(field.type):
            parser.add_argument(
                field.flag, dest=field.name, action="append", metavar=_metavar(field.type), help=text
            )
        else:
            parser.add_argument(field.flag, dest=field.name, metavar=_metavar(field.type), help=text)
    known, unknown = parser.parse_known_args(list(argv))
    if unknown:
        flag = unknown[0].split("=", 1)[0]
        if not flag.startswith("-"):
            raise SettingsError(f"argument {flag!r} is not understood; settings are given as --NAME VALUE")
        candidates = ["--config", *(field.flag for field in fields.values())]
        raise SettingsError(f"flag {flag} is no setting{_did_you_mean(flag, candidates)}")
    return vars(known)


def _from_environment(
    fields: Mapping[str, Field], prog: str, environ: Mapping[str, str]
) -> dict[str, object]:
    prefix = _prefix(prog)
    by_variable = {field.environment: field.name for field in fields.values()} | {prefix + "CONFIG": "config"}
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if not variable.startswith(prefix):
            continue
        if variable not in by_variable:
            raise SettingsError(
                f"environment variable {variable} is no setting{_did_you_mean(variable, list(by_variable))}"
            )
        values[by_variable[variable]] = text
    return values


def _from_file(fields: Mapping[str, Field], path: Path, named_by: str) -> dict[str, object]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise SettingsError(f"settings file {path} ({named_by}): {problem.strerror or problem}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise SettingsError(f"settings file {path} ({named_by}) is not TOML: {_one_line(problem)}") from None
    values = {}
    for key, value in document.items():
        if key not in fields:
            raise SettingsError(f"key {key} in {path} is no setting{_did_you_mean(key, list(fields))}")
        values[key] = _convert(fields[key], value, f"file {path}", strict=True)
    return values


def _from_text(field: Field, text: object, source: str) -> object:
    """A value that came as text: from a flag (a list of texts if it may be repeated) or the environment."""
    value = text
    if _is_list(field.type):
        texts = text if isinstance(text, list) else [text]
        value = [item.strip() for part in texts for item in str(part).split(",") if item.strip()]
    elif text == "" and type(None) in _members(field.type):
        value = None
    return _convert(field, value, source, strict=False)


def _convert(field: Field, value: object, source: str, strict: bool) -> object:
    try:
        return msgspec.convert(value, field.type, strict=strict, dec_hook=_from_str)
    except ValueError as problem:  # msgspec.ValidationError is one
        raise SettingsError(
            f"setting {field.name} ({source}): {_one_line(problem)}: {as_written(value)!r}{_choices(field.type)}"
        ) from None


def _from_str(wanted: type, value: object) -> object:
    """msgspec's hook for types that it does not know: those whose constructor takes their text."""
    if wanted in _TEXT_TYPES and isinstance(value, str):
        return wanted(value)
    if wanted in _TEXT_TYPES:
        raise ValueError(f"Expected a text, got `{type(value).__name__}`")
    raise NotImplementedError(f"settings of type {wanted} are not supported")


_TEXT_TYPES: Final[frozenset[Callable[[str], object]]] = frozenset(
    (
        Path,
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
    )
)


# --- names and texts ----------------------------------------------------------------------------------------


def _prefix(prog: str) -> str:
    return prog.upper().replace("-", "_") + "_"


def _usual_file(prog: str) -> Path:
    return Path("/etc/sdn") / f"{prog.removeprefix('sdn-')}.toml"


def _one_line(problem: BaseException) -> str:
    return " ".join(str(problem).split())


def _did_you_mean(given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def as_written(value: object) -> str:
    """A value as one would write it in a flag."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, (list, tuple)):
        return ",".join(as_written(item) for item in value) or "empty"
    return str(value) if value != "" else "empty"


def _choices(kind: Any) -> str:
    choices = _metavar(kind)
    return f"; use one of {choices.replace('|', ', ')}" if "|" in choices else ""


def _metadata(kind: Any) -> list[Meta]:
    return [item for item in getattr(kind, "__metadata__", ()) if isinstance(item, Meta)]


def _members(kind: Any) -> tuple[Any, ...]:
    """The types that a declared type allows, without Annotated and with unions taken apart."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for part in get_args(kind) for member in _members(part))
    return (kind,)


def _is_bool(kind: Any) -> bool:
    return bool in _members(kind)


def _is_list(kind: Any) -> bool:
    return any(get_origin(member) in (list, tuple) or member in (list, tuple) for member in _members(kind))


def _metavar(kind: Any) -> str:
    member = next(iter(m for m in _members(kind) if m is not type(None)))
    if get_origin(member) is Literal:
        return "|".join(str(choice) for choice in get_args(member))
    if isinstance(member, type) and issubclass(member, enum.Enum):
        return "|".join(str(choice.value) for choice in member)
    if get_origin(member) in (list, tuple):
        inner = _metavar(typing.get_args(member)[0])
        return f"{inner},..."
    names = {int: "NUMBER", float: "NUMBER", str: "TEXT", bool: "true|false", Path: "PATH"}
    if member in _TEXT_TYPES and member is not Path:
        return str(member.__name__).removeprefix("IPv4").removeprefix("IPv6").upper()
    return names.get(member, "VALUE")


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, raised to the caller."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message.replace("argument --", "flag --"))


class _Help(argparse.RawTextHelpFormatter):
    """Meaning under the flag, wrapped to 100 columns, with the line of default and environment kept apart."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=6, width=100)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [
            line
            for part in text.splitlines()
            for line in super(argparse.RawTextHelpFormatter, self)._split_lines(part, width)
        ]
