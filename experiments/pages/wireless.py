"""The figures of docs/wireless.md."""

from typing import Any

from experiments.pages.markdown import markdown, share
from experiments.pages.paper import seen
from experiments.pages.records import estimate, one_of, record
from experiments.pages.registry import figure, table
from fedaigc.errors import UserError

_PROTECTION = {
    "uncoded 16qam": "uncoded 16-QAM",
    "uncoded qpsk": "slower modulation: uncoded QPSK",
    "16qam at rate 0.54": "LDPC: 16-QAM at rate .54",
    "qpsk at rate 0.44": "LDPC: QPSK at rate .44",
    "adaptive": "adaptive modulation and coding",
    "16qam, 2 planes coded": "the 2 most significant planes coded",
    "uncoded 16qam, noise-matched": "noise-matched resume",
}
_GROUPS = {
    "shared": "shared",
    "finished images": "the edge sends finished images",
    "alone": "every device alone",
}
_SCHEDULERS = ("DPM++ 2M", "UniPC", "PNDM")


@table
def group_size(size: int) -> str:
    """Energy and latency of a picture in a group of a size."""
    rows = []
    for how, told in _GROUPS.items():
        row = one_of(record("wireless/group_size")["rows"], f"how={how},group size={size}")
        device = row["device_j"]["mean"]
        cells = [f"{device:.2f}" if device < 1 else f"{device:.1f}"]
        cells += [f"{row[what]['mean']:.1f}" for what in ("system_j", "latency_s")]
        rows.append([told, *cells])
    return markdown([f"a group of {size}", "device, J", "device and edge, J", "latency, s"], rows)


@table
def waiting() -> str:
    """A sender that waits out a fade, by the number of steps it waits at most."""
    rows = []
    for row in record("wireless/waiting")["rows"]:
        rows.append(
            [
                str(row["waits at most"]),
                share(estimate(row["packets with errors"])),
                f"{row['steps on the device']['mean']:.1f}",
                seen(row, "object"),
                seen(row, "place"),
            ]
        )
    header = ["waits at most", "packets with bit errors", "steps left to the device"]
    return markdown([*header, "target object seen", "target place seen"], rows)


@figure
def waiting_seen(what: str) -> tuple[float, float]:
    """Smallest and largest share of pictures with the target's object or place, over all waits."""
    found = [row["judge"][what]["mean"] for row in record("wireless/waiting")["rows"]]
    return min(found), max(found)


def _protected(variant: str, snr_db: float) -> dict[str, Any]:
    rows = record("wireless/protection")["rows"]
    found = [row for row in rows if row["variant"] == variant and row["snr_db"] == snr_db]
    if len(found) != 1:
        raise UserError(f"{len(found)} rows have variant {variant!r} at {snr_db} dB: expected one")
    return found[0]


def _stable_diffusion(row: dict[str, Any], what: str) -> float:
    value: float = row["Stable Diffusion v1-4"][what]
    return value


@table
def protection(snr_db: float) -> str:
    """What each kind of protection gives and costs at one SNR."""
    rows = []
    for variant, told in _PROTECTION.items():
        row = _protected(variant, snr_db)
        rows.append(
            [
                told,
                share(estimate(row["against the picture without a channel"]["ssim"])),
                seen(row, "object"),
                f"{row['bits on air by information bits']:.2f}",
                share(_stable_diffusion(row, "radio, J")),
                f"{row['steps on the device']:.0f}",
                f"{_stable_diffusion(row, 'denoising on the phone, J'):.0f}",
            ]
        )
    header = ["", "SSIM", "target object seen", "bits on air a bit", "radio, J", "steps on the device"]
    return markdown([*header, "denoising, J"], rows)


@figure
def protected_ssim(variant: str, snr_db: float) -> float:
    """Mean SSIM to the picture without a channel, of a variant at an SNR."""
    mean: float = _protected(variant, snr_db)["against the picture without a channel"]["ssim"]["mean"]
    return mean


@figure
def protected_seen(variant: str, snr_db: float) -> list[float]:
    """Share of pictures with the target's object, of a variant at an SNR, with its interval."""
    found = estimate(_protected(variant, snr_db)["judge"]["object"])
    return [found.mean, found.low, found.high]


@figure
def more_joules(first: str, second: str, snr_db: float) -> float:
    """Joules that a variant costs more than another one, of the radio and of denoising."""
    costs = [
        sum(
            _stable_diffusion(_protected(variant, snr_db), what)
            for what in ("radio, J", "denoising on the phone, J")
        )
        for variant in (first, second)
    ]
    return costs[0] - costs[1]


@figure
def joules_ratio(snr_db: float) -> float:
    """How many times the joules of adaptive coding noise-matched resume costs, both beyond no code."""
    return more_joules("uncoded 16qam, noise-matched", "uncoded 16qam", snr_db) / more_joules(
        "adaptive", "uncoded 16qam", snr_db
    )


def _handed(scheduler: str, k: int, handoff: str, number_format: str) -> dict[str, Any]:
    wanted = {"scheduler": scheduler, "K": k, "hand-off": handoff, "number format": number_format}
    found: dict[str, Any] = next(
        row for row in record("wireless/handoffs")["rows"] if wanted.items() <= row.items()
    )
    return found


@table
def handoffs(k: int, number_format: str) -> str:
    """Hand-offs with and without the scheduler's history, at one K in one number format."""
    rows = []
    for scheduler in _SCHEDULERS:
        found = [_handed(scheduler, k, handoff, number_format) for handoff in ("exact", "latents")]
        cells = []
        for row in found:
            ssim = share(estimate(row["against the unsplit run"]["ssim"]), 3)
            # an interval of one value says nothing
            value, _, interval = ssim.partition(" ")
            told = ssim if interval and interval.strip("[]").split(", ")[0] != value else value
            cells.append(f"{row['serialized bits'] / 1000:.1f}, {told}")
        rows.append([scheduler, *cells, ", ".join(seen(row, "object") for row in found)])
    return markdown(["scheduler", "exact: kbit, SSIM", "latents: kbit, SSIM", "object: exact, latents"], rows)


@figure
def handed_seen(scheduler: str, handoff: str, number_format: str, *ks: int) -> list[float]:
    """Shares of pictures with the target's object after a hand-off at each K."""
    return [_handed(scheduler, k, handoff, number_format)["judge"]["object"]["mean"] for k in ks]


@figure
def history_bits(scheduler: str, k: int, number_format: str) -> float:
    """Bits of a packet with the scheduler's history, by those of one without."""
    exact, latents = (
        _handed(scheduler, k, handoff, number_format)["serialized bits"] for handoff in ("exact", "latents")
    )
    return exact / latents


@table
def radio_speed() -> str:
    """Seconds of the full chain of the radio, of plain sionna, and of the abstraction."""
    rows = []
    for row in record("benchmark_radio")["rows"]:
        seconds = row["seconds"]
        rows.append(
            [
                f"{row['snr_db']:g} dB",
                f"{share(seconds['full chain'], 3)} s",
                f"{share(seconds['plain sionna'], 3)} s",
                share(row["full chain by plain sionna"]),
                f"{share(seconds['abstraction'], 4)} s",
                f"{row['full chain by abstraction']:,.0f}",
            ]
        )
    header = ["SNR", "full chain", "plain sionna", "full / plain (goal 1)", "abstraction"]
    return markdown([*header, "full / abstraction (goal 100)"], rows)
