"""The words of a domain: how its items, histories and profiles read."""

from __future__ import annotations

from typing import Protocol

from usermirror_gym.configs import preset_names, read_preset
from usermirror_gym.data import RecDataset
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.scenes.words.template import TemplateText
from usermirror_gym.scenes.words.template_form import check_columns, read_template


class DomainText(Protocol):
    """Everything a prompt or a rendering says about users and items; every text is clean."""

    noun: str
    """What one item is called, e.g. ``"film"``."""
    past: str
    """What the user did with the items of the history, e.g. ``"watched"``."""

    def title(self, item_id: int) -> str:
        """Short name of an item."""
        ...

    def option(self, item_id: int) -> str:
        """What a list shows of an item: title and public facts."""
        ...

    def past_item(
        self, item_id: int, rating: float, *, behaviour: str = "", age: int | None = None
    ) -> str:
        """What the history shows of an item; NaN is no rating.

        Args:
            behaviour: what else is known of what the user did with it.
            age: seconds between it and the start of the session, if that is known.
        """
        ...

    def profile(self, user_id: int) -> str:
        """One sentence on the user, or an empty string if nothing is known."""
        ...


def domain_text(dataset: RecDataset) -> TemplateText:
    """The words of a data set: its own template, else that of its domain.

    Raises:
        UnknownNameError: there is no template for this domain; suggests the nearest.
        ConfigError: the template cannot be used; names the text and the segment.
    """
    if dataset.template is not None:
        where = f"template of data set {dataset.name!r}"
        template = read_template(dataset.template, where)
        check_columns(template, dataset, where)
        return TemplateText(dataset, template)
    if dataset.domain not in preset_names("domains"):
        raise UnknownNameError("domain", dataset.domain, preset_names("domains"))
    content = read_preset("domains", dataset.domain)
    return TemplateText(dataset, read_template(content, f"configs/domains/{dataset.domain}.yaml"))
