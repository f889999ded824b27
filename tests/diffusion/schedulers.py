"""The schedulers that fit each family of pipelines, and their configuration in tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers

# class and what is set beside the family's own noise schedule
Table = dict[str, tuple[str, dict[str, Any]]]
DIFFUSION: Table = {
    "DDIM": ("DDIMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "EulerAncestral": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++2M": ("DPMSolverMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
}
# not asked for by anyone yet: the same technique carries them
MORE_DIFFUSION: Table = {
    "DDPM": ("DDPMScheduler", {}),
    "PNDM-Runge-Kutta": ("PNDMScheduler", {"skip_prk_steps": False}),
    "Euler-Karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "DPM++2M-SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++3M-Karras": ("DPMSolverMultistepScheduler", {"solver_order": 3, "use_karras_sigmas": True}),
    "DPM-singlestep": ("DPMSolverSinglestepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "KDPM2Ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
FLOW: dict[str, Table] = {
    "sd3": {
        "FlowMatchEuler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        "FlowMatchEuler-dynamic": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
        "FlowMatchHeun": ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
        "DPM++2M-flow": ("DPMSolverMultistepScheduler", _FLOW),
        "UniPC-flow": ("UniPCMultistepScheduler", _FLOW),
    },
    "flux": {
        "FlowMatchEuler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        "FlowMatchEuler-dynamic": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
        "UniPC-flow": ("UniPCMultistepScheduler", _FLOW),
    },
}
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@dataclass(frozen=True)
class Case:
    """A family of pipelines with one of its schedulers."""

    family: str
    scheduler: str
    guided: bool

    def __str__(self) -> str:
        return f"{self.family}-{self.scheduler}-{'guided' if self.guided else 'plain'}"

    @property
    def guidance(self) -> dict[str, Any]:
        """Return arguments of the stock call. FLUX distils guidance, and also supports true guidance."""
        if self.family == "flux":
            return {"guidance_scale": 3.5} | ({"true_cfg_scale": 3.0} if self.guided else {})
        return {"guidance_scale": 4.0 if self.guided else 1.0}

    @property
    def negative_prompt(self) -> str:
        """FLUX guides only with a negative prompt."""
        return "a blurry photo" if self.family == "flux" and self.guided else ""


def scheduler_of(family: str, name: str) -> Any:
    """Return a stock scheduler for a family, by its name in the tables above."""
    flow = FLOW.get(family)
    table = flow if flow is not None else DIFFUSION | MORE_DIFFUSION
    kind, options = table[name]
    if flow is None:
        prediction = {"prediction_type": "v_prediction"} if family == "sd2" else {}
        clipping = (
            {"clip_sample": False} if kind in ("DDIMScheduler", "DDPMScheduler", "LCMScheduler") else {}
        )
        offset = {
            name: value
            for name, value in _NOISE.items()
            if kind != "DPMSolverSinglestepScheduler" or name != "steps_offset"
        }
        options = offset | prediction | clipping | options
    return getattr(diffusers, kind)(**options)


def cases() -> list[Case]:
    """Return every family with every scheduler that fits it, with and without guidance."""
    return [
        Case(family, name, guided)
        for family in ("sd1", "sd2", "sdxl", "sd3", "flux")
        for name in FLOW.get(family, DIFFUSION)
        for guided in (True, False)
    ]


def covering(found: Sequence[Case]) -> list[Case]:
    """Return few of the cases: each scheduler, and each family with guidance and without, is among them."""
    kept: list[Case] = []
    missing = {part for case in found for part in _parts(case)}
    while missing:
        # the first of those that add most
        best = max(found, key=lambda case: len(missing.intersection(_parts(case))))
        kept.append(best)
        missing.difference_update(_parts(best))
    return [case for case in found if case in kept]


def _parts(case: Case) -> list[object]:
    return [case.scheduler, (case.family, case.guided)]
