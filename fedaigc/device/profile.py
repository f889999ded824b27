"""Measurement of this machine's profile: seconds of a step, a text encoding and a decoding, and joules."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedaigc.diffusion.loading import base_fingerprint
from fedaigc.diffusion.sampling.segment import decode, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import UserError
from fedaigc.wireless.profiles import PHONE, DeviceProfile

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_STEPS = 8
# the processor's energy counter on Linux, in microjoules; often only the superuser can read it
ENERGY_COUNTER = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


def measure_profile(
    pipe: "DiffusionPipeline",
    *,
    model: str,
    height: int,
    width: int,
    guidance_scale: float,
    watts: float,
    repeats: int = 5,
    counter: Path = ENERGY_COUNTER,
) -> DeviceProfile:
    """Measure the profile of this machine with a pipeline.

    Times are medians. Runs of 8 steps and of 1 step separate the time of a step from the fixed time of a
    call, which counts as text encoding. Joules come from the processor's energy counter if it can be read,
    else from `watts`; the sources state which. The radio is that of the phone, since the radio of this
    machine is unknown.

    Args:
        pipe: Pipeline to measure.
        model: Name of the model for the profile.
        height, width: Image size in pixels.
        guidance_scale: Guidance scale of the steps.
        watts: Power to assume if the counter cannot be read.
        repeats: Number of runs per median.
        counter: File of the energy counter.

    Raises:
        UserError: If `repeats` is below 1 or `watts` is not above 0.
    """
    if repeats < 1 or not watts > 0:
        raise UserError(f"repeats is {repeats}, watts {watts}: expected at least 1, and above 0")
    base_hash = base_fingerprint(pipe)
    plan = build_plan(
        pipe,
        num_inference_steps=_STEPS,
        guidance_scale=guidance_scale,
        height=height,
        width=width,
        base_hash=base_hash,
    )
    prompt = {"prompt": "a bird on a desk"}
    begun = initial_state(pipe, plan, 0)
    steps = plan.num_steps
    joules_before, seconds_before = _joules(counter), time.perf_counter()
    one = _median(lambda: run_segment(pipe, begun, prompt, plan, 1), repeats)
    all_steps = _median(lambda: run_segment(pipe, begun, prompt, plan, steps), repeats)
    step_s = max(0.0, (all_steps - one) / (steps - 1))
    text_s = max(0.0, one - step_s)
    last = run_segment(pipe, begun, prompt, plan, steps)
    # decoding is a call without steps, which also encodes the text: this time is subtracted
    decode_s = max(0.0, _median(lambda: decode(pipe, last, plan, prompt), repeats) - text_s)
    joules_after, seconds = _joules(counter), time.perf_counter() - seconds_before
    source = f"assumed: {watts:g} W while it computes; give --watts what a meter shows"
    power = watts
    if joules_before is not None and joules_after is not None and joules_after > joules_before:
        power = (joules_after - joules_before) / seconds
        source = f"measured: the processor's energy counter, {power:.1f} W over {seconds:.0f} s"
    timed = f"measured: here, median of {repeats}"
    radio = {
        name: PHONE.sources[name] for name in ("tx_power_w", "amplifier_efficiency", "circuit_w", "receive_w")
    }
    return DeviceProfile(
        name="this machine",
        model=f"{model}, {height} px",
        step_s=step_s,
        step_j=power * step_s,
        text_s=text_s,
        text_j=power * text_s,
        decode_s=decode_s,
        decode_j=power * decode_s,
        tx_power_w=PHONE.tx_power_w,
        amplifier_efficiency=PHONE.amplifier_efficiency,
        circuit_w=PHONE.circuit_w,
        receive_w=PHONE.receive_w,
        sources=dict.fromkeys(("step_s", "text_s", "decode_s"), timed)
        | dict.fromkeys(("step_j", "text_j", "decode_j"), source)
        | radio,
    )


def _median(run: Callable[[], object], repeats: int) -> float:
    run()  # the first call allocates and compiles
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _joules(counter: Path) -> float | None:
    try:
        return int(counter.read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None
