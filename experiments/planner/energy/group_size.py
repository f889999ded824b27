"""Energy of a picture against the size of its group, with two levels and with a tree; prints JSON.

    python -m experiments.planner.energy.group_size --record experiments/records/planner/energy.json \\
        --picture docs/images/planner/energy.png

A group is a caption of Scenes and its nearest others, by the vectors of the shipped atlas, so a larger group is less
alike. The shipped calibration of Scenes and the default risk of a run say how far they share; N = 11. Planners minimise
joules. Shared steps run on the edge server, or on a member of each node, a phone like the others. Without --device and
--edge the machines are the built-in profiles: seconds of the phone are measured, watts and the edge server are assumed
(see `fedaigc.wireless.profiles`). With them they are files of `fedaigc profile`.

A packet has 131,072 bits, Stable Diffusion v1-4's latents at 8 bits, and crosses the link of
`experiments.wireless.group_size`. Nothing is denoised: costs are those of `fedaigc.planning.cost`. Intervals are
Student's over groups.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

import fedaigc
from experiments.planner.judged import LADDER, over_streams
from experiments.planner.output import write
from experiments.streams.popular import captions
from experiments.wireless.group_size import LATENT_BITS, airtimes
from fedaigc import assets
from fedaigc.collaboration.planner import Executor
from fedaigc.federation.server.sharing.planned import machines_of
from fedaigc.planning.batteries import device_joules
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import plan_cost
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.planners.registry import planner
from fedaigc.planning.setting import Link, Machine, Machines, Setting, Weights
from fedaigc.planning.tasks import Tasks
from fedaigc.rng import numpy_rng
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import RISK, TOLERANCE, Calibration
from fedaigc.semantics.denoiser.shipped import ATLAS, SCENES_CALIBRATION
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE, DeviceProfile, read_profile

SIZES = (2, 4, 8, 16, 32)
WAYS: tuple[tuple[str, Literal["edge", "member"]], ...] = (
    ("none", "edge"),
    ("two_levels", "edge"),
    ("two_levels", "member"),
    ("greedy_tree", "edge"),
    ("greedy_tree", "member"),
)


def scenes() -> Float[np.ndarray, "captions d"]:
    """Return the vectors of all captions of Scenes."""
    atlas = Atlas.read(assets.path(ATLAS))
    rows = {caption: row for row, caption in enumerate(atlas.captions)}
    return np.asarray(atlas.vectors[[rows[caption] for caption in captions()]], dtype=float)


def groups(size: int, number: int, vectors: Float[np.ndarray, "captions d"]) -> Iterator[Tasks]:
    """Yield groups: random captions, each with its nearest others."""
    for first in numpy_rng(0, "groups of an energy figure").choice(len(vectors), number, replace=False):
        away = np.linalg.norm(vectors - vectors[first], axis=1)
        yield Tasks.of(vectors[np.argsort(away, kind="stable")[:size]])


def machine(profile: DeviceProfile) -> Machine:
    """Return a profile as planners need it."""
    return Machine(
        profile.name,
        profile.step_s,
        profile.step_j,
        image_s=profile.text_s + profile.decode_s,
        image_j=profile.text_j + profile.decode_j,
    )


def link(edge: DeviceProfile, device: DeviceProfile) -> Link:
    """Return what a packet costs on average, from the edge server to a device 150 m away."""
    radio = RadioLink(150.0, edge.tx_power_w, line_of_sight=False, bandwidth_hz=5e6, speed_m_s=3 / 3.6)
    air, late = airtimes(radio, LATENT_BITS, 0)
    joules = [edge.radio.send_energy_j(s) + device.radio.receive_energy_j(s) for s in air]
    return Link(LATENT_BITS, float(np.mean(late)), float(np.mean(joules)))


def costs(tasks: Tasks, setting: Setting, name: str) -> dict[str, float]:
    """Return what a plan costs: joules and seconds of a picture, joules of a device and of the one that spends most.

    Raises:
        RuntimeError: If the plan does not keep its promises.
    """
    plan = planner(name)(tasks, setting)
    if faults := check_plan(plan, tasks, setting):
        raise RuntimeError(f"{name}: {faults}")
    found, spent = plan_cost(plan, tasks, setting), list(device_joules(plan, tasks, setting).values())
    return {
        "joules": found.joules / len(tasks),
        "device": float(np.mean(spent)),
        "busiest device": max(spent),
        "seconds": found.mean_seconds,
        "shared steps": float(plan.handoffs.mean()),
    }


def measure(
    machines: Machines, curve: DamageCurve, sizes: Sequence[int], number: int
) -> list[dict[str, Any]]:
    """Return a row for each size and way: means over groups, with intervals."""
    vectors = scenes()
    rows = []
    for size in sizes:
        for name, executor in WAYS:
            by = replace(machines, executor=executor)
            setting = Setting(curve, RISK, by, Weights.joules(by))
            found = [costs(tasks, setting, name) for tasks in groups(size, number, vectors)]
            rows.append(
                {"size": size, "planner": name, "executor": executor}
                | {key: over_streams([each[key] for each in found]) for key in found[0]}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--groups", type=int, default=20, help="groups of each size")
    parser.add_argument("--device", type=Path, help="profile of the devices")
    parser.add_argument("--edge", type=Path, help="profile of the edge server")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    device = read_profile(options.device) if options.device else PHONE
    edge = read_profile(options.edge) if options.edge else EDGE_SERVER
    machines = replace(
        machines_of(Executor.EDGE), edge=machine(edge), devices=(machine(device),), link=link(edge, device)
    )
    calibration = Calibration.read(assets.path(SCENES_CALIBRATION))
    rows = measure(machines, DamageCurve.of_risk(calibration, TOLERANCE, LADDER), SIZES, options.groups)
    record = {
        "what": "energy of a picture against the size of its group, by planner and by who runs shared steps",
        "fedaigc": fedaigc.__version__,
        "groups": options.groups,
        "ladder": LADDER,
        "tolerance": TOLERANCE,
        "risk": RISK,
        "profiles": {"edge": asdict(edge), "device": asdict(device)},
        "link": asdict(machines.link),
        "sizes": rows,
    }
    write(record, options.record)
    if options.picture is not None:
        from experiments.planner.energy.picture import draw

        draw(rows, options.picture)


if __name__ == "__main__":
    main()
