"""Options that several commands share, and those that are made from the settings of a run."""

from __future__ import annotations

import ast
import codecs
import functools
import inspect
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer

import usermirror_gym
from usermirror_gym.configs.plugins import split_names
from usermirror_gym.configs.session import RunConfig, own_first
from usermirror_gym.errors import UserMirrorError
from usermirror_gym.files import disk_is_full
from usermirror_gym.foreign import for_terminal, masked, parse_yaml
from usermirror_gym.progress import Terminal

Engine = Annotated[
    str,
    typer.Option(
        help="What runs the LLM: auto, transformers, vllm or server; see 'usermirror engines'."
    ),
]
RecipeSetting = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A setting by its path in the YAML file: --set seed=1 (repeatable)."
    ),
]
"""Of a build or a training."""
OutFolder = Annotated[
    Path | None,
    typer.Option(help="The run's folder; an unfinished run in it goes on. runs/<name>."),
]
RunFolder = Annotated[Path, typer.Option(help="Run folder; an unfinished run in it is continued.")]

Allow = Annotated[
    list[str] | None,
    typer.Option(help="A reward or session model (module:name) that may be imported (repeatable)."),
]


def takes(
    config: type[RunConfig], make: Callable[..., Any] | None = None, *, llm: str = "", **names: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of a class of settings: its default, and its
    docstring as help.  The command gets the settings as its first argument.

    Args:
        make: makes the settings of their values; by default the class.
        llm: the field with the settings of an LLM; the command gets the option ``--engine``.
        names: of options that are not called as their field: ``simulator_options="--set"``.
    """
    hints, texts, fields = get_type_hints(config), _texts(config), own_first(config)
    options = [_option(f, hints[f.name], texts[f.name], names.get(f.name)) for f in fields]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {f.name: _parsed(given.pop(f.name), hints[f.name]) for f in fields}
            if llm:
                values[llm] = with_engine(values[llm], given.pop("engine"))
            command((make or config)(**values), **given)

        keyword = inspect.Parameter.KEYWORD_ONLY
        engine = inspect.Parameter("engine", keyword, default="auto", annotation=Engine)
        parameters = [*options, *([engine] if llm else []), *(p.replace(kind=keyword) for p in own)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return plain_errors(run)

    return wrap


def _option(field: Field[Any], hint: Any, text: str, name: str | None) -> inspect.Parameter:
    """Settings of settings are a repeatable option, several names stand in one text."""
    default = field.default
    if get_origin(hint) is dict:
        kind: Any = list[str] | None
        default = None
    elif get_origin(hint) is tuple:
        kind, default = str, ",".join(default)  # type: ignore[arg-type]
    elif hint in (bool, int, float):
        kind = hint
    else:
        kind, default = (str, default) if default else (str | None, None)
    if default is MISSING:
        default = inspect.Parameter.empty
    option = typer.Option(*([name] if name else []), help=text)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(
        field.name, keyword, default=default, annotation=Annotated[kind, option]
    )


def _parsed(value: Any, hint: Any) -> Any:
    if get_origin(hint) is dict:
        return parse_settings(value)
    if get_origin(hint) is tuple:
        return tuple(split_names(value))
    return value


def _texts(config: type) -> dict[str, str]:
    """The docstring under every field, as one line."""
    texts = {}
    for owner in reversed(config.__mro__[:-1]):
        [code] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        for line, text in pairwise(code.body):  # type: ignore[attr-defined]
            if isinstance(line, ast.AnnAssign) and isinstance(text, ast.Expr):
                texts[line.target.id] = " ".join(text.value.value.split())  # type: ignore
    return texts


def with_engine(settings: dict[str, Any], engine: str) -> dict[str, Any]:
    """Settings of a simulator, the kind of its engine among them.

    Raises:
        UnknownNameError: no such kind of engine.
        ConfigError: ``engine`` is set to something else too.
    """
    from usermirror_gym.engines.choosing import KINDS
    from usermirror_gym.errors import ConfigError, UnknownNameError

    if engine == "auto":
        return settings
    if engine not in KINDS:
        raise UnknownNameError("kind of engine", engine, ["auto", *KINDS])
    given = settings.get("engine", {})
    if not isinstance(given, dict) or given.get("kind", engine) != engine:
        raise ConfigError(
            f"--engine {engine} and --set engine={given!r} do not go together: give one of them, "
            "or settings as in --set 'engine={dtype: bfloat16}'"
        )
    return {**settings, "engine": {**given, "kind": engine}}


def show(*things: object) -> None:
    """Print tables, and texts and paths as they stand, wrapped to the width."""
    console = Terminal(width=None if is_terminal() else 120)
    with _printing():
        for thing in things:
            console.print(str(thing) if isinstance(thing, Path) else thing)


def say(*things: object) -> None:
    """Print texts as they stand, a line each."""
    with _printing():
        print(*map(for_terminal, things), sep="\n")


@contextmanager
def _printing() -> Iterator[None]:
    """What cannot be written is told once, and now: at its end Python would only complain."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "wb") as nothing:  # for what is still waiting
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        error.filename = error.filename or "the output"
        raise


def is_terminal() -> bool:
    """Whether the output is read by a person; it can be closed (``>&-``)."""
    return sys.stdout is not None and sys.stdout.isatty()


class Command(typer.Typer):
    """The command line as a process: whatever its output is, it ends without a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if signal.getsignal(signal.SIGINT) is usermirror_gym.stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # tables hold characters that ASCII does not have
                stream.reconfigure(errors=_PLAINER)
        try:
            try:
                return super().__call__(*args, **kwargs)
            finally:
                with suppress(BrokenPipeError), _printing():  # help texts, which typer prints
                    pass
        except OSError as error:
            error.filename = error.filename or "the output"
            _complain(f"Error: {_readable(error)}")
            raise SystemExit(1) from error


_PLAINER = "usermirror-plainer"
_PLAIN = str.maketrans("±▲▼✓✗◆█–—−…·Δ×─", "~^v+x*#---..Dx-")  # noqa: RUF001


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """In place of what an encoding lacks: a character like it, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "replace").decode(), error.end


codecs.register_error(_PLAINER, _plainer)


def _complain(text: str) -> None:
    Terminal(stderr=True).print(str(masked(text)), style="red")


def trains() -> None:
    """Trainers build their tables and word their prompts in one process each; call it first."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def parse_settings(pairs: list[str] | None) -> dict[str, Any]:
    """``name=value`` pairs; values are YAML.

    Raises:
        ConfigError: a pair has no ``=``, or its value is not YAML.
    """
    from usermirror_gym.errors import ConfigError

    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes name=value, got {pair!r}")
        try:
            settings[name.strip()] = parse_yaml(value)
        except ValueError as error:
            raise ConfigError(
                f"--set {pair}: the value is not YAML; write texts in quotes"
            ) from error
    return settings


_MAKE_ROOM = ". Make room; what is whole stays, and the same command goes on from there"


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors raised on purpose, and those of files, end the command with one readable message and
    status 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            Terminal(stderr=True).print(usermirror_gym.STOPPED)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of the output has had enough; typer knows
            raise
        except (UserMirrorError, OSError) as error:
            _complain(f"Error: {_readable(error)}")
            raise typer.Exit(1) from error
        except Exception as error:
            if not disk_is_full(error):
                raise
            _complain(f"Error: the disk is full{_MAKE_ROOM}")
            raise typer.Exit(1) from error

    return run


def _readable(error: Exception) -> str:
    if not isinstance(error, OSError) or not error.filename:
        return str(error)
    # A folder that cannot be written, a full disk: the system's words and the path say it all.
    cure = _MAKE_ROOM if disk_is_full(error) else ""
    return f"{error.filename}: {error.strerror or error}{cure}"
