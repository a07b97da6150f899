"""Pages and cards: one set of templates, each escaped for HTML or Markdown by its ending."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from usermirror_gym.foreign import for_html
from usermirror_gym.report.tables import MARKS, View, escape, markdown_table
from usermirror_gym.report.text import MISSING, cell, date


def render(template: str, view: Mapping[str, Any]) -> str:
    """A template of this room, whatever it prints escaped for Markdown or HTML by its ending."""
    text = _environment(template.rpartition(".")[2]).get_template(template).render(view)
    # Names may hold lone surrogates, which no file can.
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment(kind: str) -> Environment:
    loader = PackageLoader("usermirror_gym.report")
    environment = Environment(
        loader=loader, autoescape=kind == "html", finalize=escape if kind == "md" else _harmless,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False, "allow_nan": False, "separators": (",", ":"),
    }  # fmt: skip
    environment.filters |= {
        "cell": cell, "date": date, "markdown_table": markdown_table,
        "percent": lambda share: f"{share:.1%}", "safe_link": _safe_link,
        "table_of": View.of_rows, "sha256": _sha256,
        "yaml": lambda fields: Markup(yaml.safe_dump(fields, sort_keys=False).strip()),
    }  # fmt: skip
    environment.globals |= {
        "asset": lambda name: Markup(loader.get_source(environment, name)[0]),
        "marks": MARKS, "missing": MISSING,
    }  # fmt: skip
    return environment


def _harmless(value: Any) -> Any:
    """What a template of HTML prints: texts escaped, control characters spelled out."""
    return Markup(for_html(value)) if isinstance(value, str) else value


def _sha256(text: str) -> str:
    """As a content security policy names a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _safe_link(address: object) -> str:
    """The address if a browser may follow it, else nothing."""
    try:
        return str(address) if urlsplit(str(address)).scheme in ("http", "https") else ""
    except ValueError:
        return ""
