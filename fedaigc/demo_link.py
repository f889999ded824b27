"""The demo's radio link: what each packet took, and one task's picture at a few rates of bit errors."""

from typing import TYPE_CHECKING, Any

from fedaigc.report.page import LinkView, SentPacket
from fedaigc.report.pictures import data_uri

if TYPE_CHECKING:
    from fedaigc.device.device import Device
    from fedaigc.diffusion.plan import DenoisingPlan
    from fedaigc.federation.config import FederationConfig

SNR_DB = 12.0
ERROR_RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


def link_settings() -> dict[str, Any]:
    """The `generation` settings of the demo's link."""
    return {"delivery": "tolerant", "link": {"snr_db": SNR_DB, "max_transmissions": 3}}


def sent_packets(groups: list[dict[str, Any]], device_prompts: dict[str, str]) -> tuple[SentPacket, ...]:
    """The packets of a generation's record, in the order of its tasks."""
    return tuple(
        SentPacket(device_prompts[task["task_id"]], **task["link"])
        for group in groups
        for task in group["tasks"]
        if task["link"] is not None
    )


def link_view(
    packets: tuple[SentPacket, ...],
    device: "Device",
    prompt: str,
    group: dict[str, Any],
    config: "FederationConfig",
    plan: "DenoisingPlan",
    shared_packet: bytes,
) -> LinkView:
    """The packets, and the task finished from `shared_packet` at each of `ERROR_RATES`."""
    from fedaigc.collaboration.link import LinkSettings, SimulatedLink

    pictures = []
    for rate in ERROR_RATES:
        link = SimulatedLink(LinkSettings(bit_error_rate=rate), config.seed)
        arrived, _ = link.send(shared_packet, f"page {rate}")
        task = device.add_prompt(prompt)
        device.finish(task, arrived, plan, delivery="tolerant", mend="clip")
        pictures.append((f"{100 * rate:g} %", data_uri(device.gallery.image(task))))
    return LinkView(packets, prompt, group["prompt"], tuple(pictures))
