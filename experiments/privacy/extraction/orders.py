"""Hostile orders to finish a task, as values that a search can draw and change, and the messages made from them.

Every order is a few named values (`Genes`): the shared state that is installed first, the plan's numbers, the packet,
and the configuration of the run. They contain everything that a server controls, beyond what devices should accept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from experiments.privacy.extraction.bisection import best_question
from experiments.privacy.extraction.candidates import candidates, text_embeddings
from experiments.privacy.extraction.hostile import LARGEST, cross_attention, overflowing_state
from fedaigc.device.acceptance import PROBE_PROMPT
from fedaigc.diffusion.adapters.stages import SharedState, adapted_layers, base_weight, weighted_layers
from fedaigc.diffusion.handoff.header import PacketHeader
from fedaigc.diffusion.handoff.packet import write_packet
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed, denoiser
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.federation.wire.generation_messages import PLAN
from fedaigc.federation.wire.messages import body

# the values that a search draws from, by gene; the first is honest
CHOICES: dict[str, tuple[Any, ...]] = {
    "strategy": ("fedavg", "flora", "full_weights", "fedex_lora"),
    "state": ("none", "zero", "overflow", "residual_overflow", "random", "denormal", "replaced", "loud"),
    "amplitude": (0.9, 0.1, 0.5, 1.5, 100.0),
    "question": (0, 1, 2, 3),
    "boundary": (500, None, 0, 999),
    "scheduler": (
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
        "AmusedScheduler",
        "EntropyBoundScheduler",
    ),
    "steps": (2, 1, 3, 11, 10**6),
    "guidance": (5.0, 0.0, 1.0, 30.0, 100.0, float("nan")),
    "side": (64, 8, 96, 32, 63, 10**5),
    "fingerprint": ("right", "wrong"),
    "packet": ("none", "noise", "scaled", "not_a_number", "channels", "batch", "odd", "integers", "damaged"),
    "scale": (1.0, 1e-38, 1e-42, 1e18, 1e38, 0.0),
    "step": (0, 1, 2, 10**6),
    "handoff": ("exact", "latents"),
    "history": ("empty", "counters", "strings", "tensors"),
    "draws": (1, 0, 9, 10**9),
    "delivery": ("strict", "tolerant"),
    "repair": ("nothing", "clip", "zero", "noise-matched"),
    "strip": ((), (0,), (0, 1)),
    "noise_seed": (0, 2**63 - 1, -1),
    "task": ("known", "other_case", "longer"),
}
HONEST: dict[str, Any] = {name: values[0] for name, values in CHOICES.items()}


@dataclass(frozen=True)
class Genes:
    """One way to request a picture. `values` has values by name (see `CHOICES`); missing values are honest."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name, HONEST[name])

    def changed(self, random: np.random.Generator, count: int) -> "Genes":
        """Return a copy with some values drawn again."""
        values = dict(self.values)
        for gene in random.choice(list(CHOICES), count, replace=False):
            values[str(gene)] = CHOICES[str(gene)][int(random.integers(len(CHOICES[str(gene)])))]
        return replace(self, name="drawn", values=values)


class Lab:
    """The attacker's own computations: the model, embeddings of all candidates, states and plans."""

    def __init__(self, pipe: Pipeline, base_hash: str, prompts: Sequence[str] | None = None) -> None:
        self.pipe, self.base_hash = pipe, base_hash
        self.prompts = list(prompts) if prompts is not None else candidates()
        self._states: dict[tuple[Any, ...], SharedState | None] = {}
        self._questions: dict[int, np.ndarray] = {}

    @cached_property
    def table(self) -> np.ndarray:
        """Return the largest magnitude of each coordinate of each candidate's embedding, M of `bisection`."""
        found: np.ndarray = text_embeddings(self.pipe, self.prompts).abs().amax(1).numpy().astype(np.float64)
        return found

    @cached_property
    def probe(self) -> np.ndarray:
        """Return the same magnitudes for the prompt with which devices probe shared states."""
        found: np.ndarray = text_embeddings(self.pipe, [PROBE_PROMPT]).abs().amax(1).numpy()[0]
        return found

    def put_question(self, number: int, question: np.ndarray) -> None:
        """Store this question under a number."""
        self._questions[number] = question

    def question(self, number: int) -> np.ndarray:
        """Return a question that halves the candidates, and for which the device's public probe does not overflow."""
        if number in self._questions:
            return self._questions[number]
        for seed in range(1000 * number, 1000 * number + 50):
            question, _ = best_question(self.table, [np.arange(len(self.table))], seed, 0)
            if (self.probe * question).max() < 0.999:
                self._questions[number] = question
                return question
        raise LookupError("every question overflows for the probe")

    def overflows(self, number: int, index: int) -> bool:
        """Return whether a candidate overflows under a question."""
        return bool((self.table[index] * self.question(number)).max() > 1)

    def state(self, genes: Genes) -> SharedState | None:
        """Return the shared state that is installed first, or None."""
        key = tuple(genes[name] for name in ("state", "amplitude", "question", "boundary"))
        if key not in self._states:
            self._states[key] = self._state(genes)
        return self._states[key]

    def _state(self, genes: Genes) -> SharedState | None:
        kind, amplitude = genes["state"], float(genes["amplitude"])
        if kind == "none":
            return None
        boundary = genes["boundary"]
        t_star = None if boundary is None else boundary_log_snr(self.pipe, boundary)
        generator = torch.Generator().manual_seed(int(genes["question"]))
        if kind in ("residual_overflow", "replaced"):
            question = self.question(int(genes["question"]))
            state = overflowing_state(self.pipe, self.base_hash, question)
            if kind == "replaced":
                # the same selection of coordinates, as large as the owner's bound allows
                whole: dict[str, Any] = dict(state.residual)
                residual = {
                    name: part * (amplitude * float(self._weight(name).norm()) / float(part.double().norm()))
                    for name, part in whole.items()
                }
                state = replace(state, residual=residual)
            return replace(state, boundary_log_snr=t_star)
        lora: dict[str, tuple[Tensor, Tensor]] = {}
        rank = 1
        if kind == "overflow":
            lora, rank = self.overflowing_factors(int(genes["question"]), amplitude), 16
        elif kind in ("random", "denormal", "loud"):
            for name in adapted_layers(self.pipe):
                weight = self._weight(name)
                down = torch.randn((1, *weight.shape[1:]), generator=generator)
                up = torch.randn((weight.shape[0], 1, *(1,) * (weight.dim() - 2)), generator=generator)
                norm = float(up.norm() * down.norm()) / float(weight.norm())
                small = {"random": 1.0, "denormal": 1e-40 * norm, "loud": 30.0}[kind]
                lora[name] = (down, up * (amplitude * small / norm))
        else:
            for name in adapted_layers(self.pipe):
                weight = self._weight(name)
                down = torch.zeros((1, *weight.shape[1:]))
                lora[name] = (down, torch.zeros((weight.shape[0], 1, *(1,) * (weight.dim() - 2))))
        return SharedState(self.base_hash, lora, rank, float(rank), {}, t_star)

    def overflowing_factors(self, number: int, amplitude: float) -> dict[str, tuple[Tensor, Tensor]]:
        """Return factors whose product is within an owner's bound of weights, but whose A overflows for a question.

        A selects up to 16 coordinates with a_j times the largest float; B is so small that B A is ordinary.
        """
        name = f"{cross_attention(self.pipe)}.to_k"
        weight, question = self._weight(name), self.question(number)
        down, up = torch.zeros((16, weight.shape[1])), torch.zeros((weight.shape[0], 16))
        for row, coordinate in enumerate(np.argsort(-question)[:16]):
            down[row, int(coordinate)] = float(question[coordinate]) * LARGEST
            up[row, row] = 1.0
        scale = amplitude * float(weight.norm()) / (math.sqrt(float((question**2).sum())) * LARGEST)
        return {name: (down, up * scale)}

    def plan(self, genes: Genes, shared_hash: str) -> tuple[dict[str, Any], DenoisingPlan | None]:
        """Return the plan's numbers as sent, and the plan if an honest device would build one."""
        values = {
            "scheduler_class": genes["scheduler"],
            "num_inference_steps": genes["steps"],
            "guidance_scale": genes["guidance"],
            "height": genes["side"],
            "width": genes["side"],
            "shared_hash": shared_hash,
            "fingerprint": "0" * 64,
        }
        plan = None
        if genes["steps"] < 1000 and genes["side"] < 3000 and math.isfinite(genes["guidance"]):
            try:
                scheduler = named_scheduler(genes["scheduler"]).from_config(self.pipe.scheduler.config)
                with borrowed(self.pipe, scheduler):
                    plan = build_plan(
                        self.pipe,
                        num_inference_steps=genes["steps"],
                        guidance_scale=genes["guidance"],
                        height=genes["side"],
                        width=genes["side"],
                        base_hash=self.base_hash,
                        shared_hash=shared_hash,
                    )
            except Exception:  # any error of a scheduler means that there is no such plan
                plan = None
        if plan is not None and genes["fingerprint"] == "right":
            values = PlanRequest.of(plan).values()
        return values, plan

    def packet(self, genes: Genes, plan: DenoisingPlan | None) -> bytes:
        """Return the packet, which is empty for an order without one."""
        kind = genes["packet"]
        if kind == "none":
            return b""
        network: Any = denoiser(self.pipe)
        channels, factor = int(network.config.in_channels), int(self.pipe.vae_scale_factor)
        side = max(1, min(genes["side"], 128) // factor)
        shape = {
            "channels": (1, channels + 1, side, side),
            "batch": (2, channels, side, side),
            "odd": (1, channels, 1, 5),
        }.get(kind, (1, channels, side, side))
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        if kind == "scaled":
            latents = latents.clamp(-3, 3) * genes["scale"]
        if kind == "not_a_number":
            latents.flatten()[0] = math.nan
        if kind == "integers":
            latents = latents.to(torch.int64)
        histories: dict[str, dict[str, Any]] = {
            "empty": {},
            "counters": {"_step_index": 1, "lower_order_nums": 2, "counter": 3},
            "strings": {"model_outputs": "no list", "ets": "none"},
            "tensors": {"model_outputs": [latents, latents], "ets": [latents * 1e30]},
        }
        history = histories[genes["history"] if genes["handoff"] == "exact" else "empty"]
        header = PacketHeader(
            plan=plan.fingerprint() if plan is not None else "0" * 64,
            base=self.base_hash,
            shared=plan.shared_hash if plan is not None else "",
            handoff=genes["handoff"],
            step=genes["step"],
            noise_seed=abs(genes["noise_seed"]),
            draw_count=genes["draws"],
        )
        packet = write_packet(header, latents, history)
        return packet[:-1] + bytes([packet[-1] ^ 0xFF]) if kind == "damaged" else packet

    def finish(self, genes: Genes, task: str) -> RecordDict:
        """Return the order to finish a task."""
        state = self.state(genes)
        numbers, plan = self.plan(genes, state.hash() if state is not None else "")
        named = {"known": task, "other_case": task.upper(), "longer": task + "0"}[genes["task"]]
        record = body(task_id=named, noise_seed=genes["noise_seed"], packet=self.packet(genes, plan))
        record[PLAN] = ConfigRecord(numbers)
        return record

    def generation(self, genes: Genes) -> dict[str, Any]:
        """Return the run's generation settings."""
        link = None
        if genes["repair"] != "nothing":
            link = {"repair": genes["repair"], "number_format": "fixed8-gray", "bit_error_rate": 1e-3}
        return {"delivery": genes["delivery"], "strip_steps": genes["strip"], "link": link}

    def _weight(self, layer: str) -> Tensor:
        return base_weight(weighted_layers(self.pipe)[layer]).detach().float().cpu()
