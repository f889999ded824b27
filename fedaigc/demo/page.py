"""Render the demo's record and pictures as one HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaigc.demo.pictures import curve


@dataclass(frozen=True)
class MemberView:
    """One task as the page shows it. All pictures are data URIs."""

    client: int
    style: str
    prompt: str
    disclosed: str
    shared_image: str
    solo_image: str
    shared_verdict: str
    solo_verdict: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class GroupView:
    """One group: its public prompt, K, the steps it cost, and its members."""

    prompt: str
    executor: str
    num_shared_steps: int
    evaluations: int
    solo_evaluations: int
    members: tuple[MemberView, ...]


@dataclass(frozen=True)
class StyleView:
    """What personal training did on one device: its private pictures, and one prompt before and after."""

    style: str
    held_out: bool
    examples: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class LinkView:
    """What was sent, and one prompt's pictures by rate of bit errors.

    packets: each member's prompt, and its packet's way as the record has it. pictures: (rate, data URI).
    """

    packets: tuple[tuple[str, Mapping[str, Any]], ...]
    prompt: str
    group_prompt: str
    pictures: tuple[tuple[str, str], ...]


def render_page(
    record: Mapping[str, Any],
    groups: list[GroupView],
    styles: list[StyleView],
    link: LinkView | None,
    target: Path,
) -> None:
    """Write the page to `target`; every figure on it comes from `record`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fedaigc.demo", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    template = environment.get_template("page.html.j2")
    losses = [entry["shared_loss"] for entry in record["federation"]["rounds"]]
    target.write_text(
        template.render(record=record, groups=groups, styles=styles, link=link, loss_curve=curve(losses)),
        encoding="utf-8",
    )
