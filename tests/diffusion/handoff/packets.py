"""Packets of a hand-made state, honest and forged."""

import hashlib
import json
import struct
from dataclasses import replace
from typing import Any

import torch

from fedaigc.diffusion.handoff.packing import (
    pack,
)
from fedaigc.diffusion.sampling.segment import DenoisingState
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from tests.diffusion.schedule.test_plan import PLAN
from tests.diffusion.schedulers import scheduler_of
from tests.diffusion.tiny_pipelines import SIZE

PROMPT = {"prompt": "an apple on a table"}
PREFIX = 42
# an ancestral multistep state, hand-made: every kind of value that a history may hold
STATE = DenoisingState(
    step=1,
    latents=torch.randn((2, 4, 4, 4), generator=torch.Generator().manual_seed(1)),
    history={
        "counter": 3,
        "flag": True,
        "nothing": None,
        "name": "x",
        "ratio": 0.1,
        "limit": -float("inf"),
        "scalar": torch.tensor(0.25, dtype=torch.float64),
        "timesteps_seen": [None, torch.tensor(981)],
        "model_outputs": [None, torch.randn((2, 4, 4, 4), generator=torch.Generator().manual_seed(2))],
        "sample": torch.randn((2, 4, 4, 4), generator=torch.Generator().manual_seed(3)).bfloat16(),
    },
    noise_seed=2**63 + 1,
    draw_count=2,
    plan_fingerprint=PLAN.fingerprint(),
)
EXACT = pack(STATE, PLAN, "exact", noise_stream=True)
LATENTS = pack(STATE, replace(PLAN), "latents", noise_stream=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def plan_of(pipe: Any, scheduler: str, steps: int = 4) -> DenoisingPlan:
    pipe.scheduler = scheduler_of("sd1", scheduler)
    return build_plan(
        pipe, num_inference_steps=steps, guidance_scale=4.0, height=SIZE, width=SIZE, base_hash="base"
    )


def forged(**changes: Any) -> bytes:
    """A packet of other header entries, with checksums that fit: a faulty or hostile machine's."""
    length = struct.unpack_from("<I", EXACT, 6)[0]
    header = json.loads(EXACT[PREFIX : PREFIX + length])
    for name, value in changes.items():
        header.pop(name, None)
        if value is not None:
            header[name] = value
    return sealed(json.dumps(header).encode(), EXACT[PREFIX + length :])


def sealed(header: bytes, body: bytes, version: int = 1) -> bytes:
    prefix = struct.pack("<4sHI", b"FAGC", version, len(header))
    return prefix + hashlib.sha256(prefix + header).digest() + header + body
