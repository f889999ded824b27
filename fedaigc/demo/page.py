"""Render the demo's record and images as one HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaigc.demo.pictures import curve


@dataclass(frozen=True)
class MemberView:
    """One task as the page shows it. All images are data URIs.

    Attributes:
        client: Number of the client.
        style: Style of the device's private images.
        prompt: The private prompt.
        disclosed: What was disclosed of the prompt, in words.
        num_shared_steps: K of the task, which its device chose; 0: it ran alone.
        shared_image: Image of the run.
        solo_image: Image of the same prompt without shared steps.
        shared_verdict: The judge's verdict on `shared_image`.
        solo_verdict: The judge's verdict on `solo_image`.
        frames: Decoded latents after each step of the run.
    """

    client: int
    style: str
    prompt: str
    disclosed: str
    num_shared_steps: int
    shared_image: str
    solo_image: str
    shared_verdict: str
    solo_verdict: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class GroupView:
    """One group as the page shows it.

    Attributes:
        prompt: The public prompt of the group.
        executor: Who ran the shared steps.
        num_shared_steps: The largest K of its members; 0: they ran alone.
        evaluations: Denoiser evaluations of the group.
        solo_evaluations: Denoiser evaluations of the same tasks without sharing.
        members: The tasks of the group.
    """

    prompt: str
    executor: str
    num_shared_steps: int
    evaluations: int
    solo_evaluations: int
    members: tuple[MemberView, ...]


@dataclass(frozen=True)
class StyleView:
    """The effect of personal training on one device. All images are data URIs.

    Attributes:
        style: Style of the device's private images.
        held_out: Whether the shipped model was not trained on the style.
        examples: Some private images.
        before: Images of fixed prompts without the personal adapter.
        after: Images of the same prompts with the personal adapter.
    """

    style: str
    held_out: bool
    examples: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class LinkView:
    """The packets of a run, and one prompt's images by bit error rate.

    Attributes:
        packets: Prompt of each member, and the transmission of its packet as in the record.
        prompt: The prompt of the images.
        group_prompt: The public prompt of its group.
        pictures: (bit error rate, data URI) of each image.
    """

    packets: tuple[tuple[str, Mapping[str, Any]], ...]
    prompt: str
    group_prompt: str
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """What the page shows beside the record.

    Attributes:
        groups: The groups with their tasks.
        styles: The effect of personal training per style.
        link: The radio link; None if no steps were shared.
    """

    groups: tuple[GroupView, ...]
    styles: tuple[StyleView, ...]
    link: LinkView | None

    def render(self, record: Mapping[str, Any], target: Path) -> None:
        """Write the page.

        Args:
            record: Record of the demo; every figure on the page comes from it.
            target: File to write.
        """
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("fedaigc.demo", "."),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        template = environment.get_template("page.html.j2")
        losses = [entry["shared_loss"] for entry in record["federation"]["rounds"]]
        text = template.render(
            record=record, groups=self.groups, styles=self.styles, link=self.link, loss_curve=curve(losses)
        )
        target.write_text(text, encoding="utf-8")
