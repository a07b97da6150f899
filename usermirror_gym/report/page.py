"""Pages: Jinja templates, with plots drawn into them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from usermirror_gym.report.markdown import cell, escape
from usermirror_gym.report.markdown import markdown_table as rows_table
from usermirror_gym.report.plots import Plot
from usermirror_gym.report.tables import MARKS, _plain_intervals, is_words, markdown_table


def render(template: str, view: Mapping[str, Any]) -> str:
    """A template of this room, whatever it prints escaped for Markdown or HTML by its ending."""
    kind = template.rpartition(".")[2]
    style = Markup(_asset("report.css") + _asset("fidelity.css"))
    text = _environment(kind).get_template(template).render(dict(view) | {"style": style})
    # Names may hold lone surrogates, which no file can.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _plain_intervals(text) if kind == "md" else text


class DrawnPlot:
    """A plot for a template that escapes whatever is not marked as safe."""

    def __init__(self, plot: Plot) -> None:
        self.title, self.caption, self.alt = plot.title, plot.caption, plot.alt
        self.svg = Markup(plot.svg)


@cache
def _environment(kind: str) -> Environment:
    """Whatever a template prints is escaped for its language."""
    environment = Environment(
        loader=PackageLoader("usermirror_gym.report"),
        autoescape=kind == "html", undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=escape if kind == "md" else None,
    )  # fmt: skip
    environment.filters |= {"markdown_table": markdown_table}
    environment.globals |= {"is_words": is_words, "marks": MARKS}
    return environment


def _asset(name: str) -> str:
    return files("usermirror_gym.report").joinpath("templates", name).read_text(encoding="utf-8")


def card_environment() -> Environment:
    """Templates of cards, which show foreign text as text."""
    environment = Environment(
        loader=PackageLoader("usermirror_gym.report"),
        autoescape=False,
        finalize=escape,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cell": cell,
        "markdown_table": rows_table,
        "percent": lambda share: f"{share:.1%}",
    }
    return environment
