"""The section `generation`: the pictures of a run, and how their first steps are shared."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedaigc.bounds import MAX_PEER_COST, MAX_PROMPT_CHARACTERS
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.collaboration.planner import Executor
from fedaigc.collaboration.topology import BETWEEN_DEVICES, Topology
from fedaigc.diffusion.model_steps import DEFAULT_SHARED_STEPS, DEFAULT_STEPS, default_shared_steps
from fedaigc.federation.config.denoiser_section import DenoiserSection
from fedaigc.federation.config.model_config import Section
from fedaigc.federation.config.planning_section import TREES, PlannerName, PlanningSection
from fedaigc.semantics.grouping import MAX_DISTANCE
from fedaigc.semantics.policy import Policy
from fedaigc.wireless.profiles import PHONE

_OF_DEVICES = (
    "enabled",
    "num_inference_steps",
    "guidance_scale",
    "negative_prompt",
    "true_cfg_scale",
    "num_shared_steps",
    "policy",
    "min_public_prompts",
    "handoff",
    "delivery",
    "scorer",
    "strip_steps",
)


class GenerationSection(Section):
    """Collaborative generation of every prompt that waits on a device.

    A packet discloses the prompt of the shared steps to the members of its group, and more of it the later it
    is sent. Under every policy but "open" that prompt is made of the signatures and contains no more than
    they do. Under "open" it is one member's own prompt, and so it is where a helper (executor "member") runs
    its own prompt instead of the group's. With a multistep scheduler, handoff "exact" reveals such a prompt
    after one step, because the scheduler's history reveals the noise; "latents" does not.

    Attributes:
        enabled: Whether images are generated at all.
        num_inference_steps: N, the number of denoising steps; without it, what the model was made for: 4 of
            "embedded-lcm", 11 of "embedded".
        guidance_scale: Scale of classifier-free guidance.
        negative_prompt: What all pictures keep away from, as devices and server read it. Owners of separate machines
            have to permit it. Empty: none.
        true_cfg_scale: Scale of the guidance by the negative prompt in pipelines that take it (FLUX, Qwen-Image);
            None: the default of the pipeline.
        num_shared_steps: K, how many of the `num_inference_steps` are shared, fewer than all; without it, 3, and below
            9 steps a third of them.
        policy: What a device discloses of a prompt.
        min_public_prompts: How many objects of Scenes, and under "general" places too, must share a signature.
            1: no guarantee.
        max_distance: Largest distance between the concepts of two members of a group; 0: equal ones only, `inf`: any.
        topology: Where prompts are grouped and shared steps run: "edge", one edge server for all devices; "edges", each
            edge of the section `edges` for its own devices; "pair", devices two by two; "cluster", devices in groups,
            each of which elects one that computes. In the last two a device runs the shared steps and sends them to the
            others; nothing passes an edge.
        executor: Who runs the shared steps: the edge or a member. In the topologies "pair" and "cluster" a member, the
            one with the lowest of the `costs`.
        costs: What computing costs the clients, in turn, such as what their batteries lack in percent; for the
            topologies "pair" and "cluster". Empty: the same for all.
        edge_batch: Groups whose shared steps the edge server runs at once. More than 1 is faster where a batch is, and
            changes the last bits of the latents. Not for samplers that draw noise.
        handoff: Hand-off mode: latents with the scheduler's history ("exact"), or latents only ("latents").
        delivery: "strict", or "tolerant": the body of a packet may carry bit errors.
        scorer: How a device judges images: "scenes" knows the concepts of Scenes, "clip" is the CLIP score with the
            prompt, for models of photographs, "none" reports counts only. On separate machines none reports scores.
        clip_model: Folder of a CLIP model, or its hub name in the local cache, for the scorer "clip"; None:
            "openai/clip-vit-base-patch16".
        strip_steps: Before each of these steps a device decodes the latents and keeps this image with the
            final one.
        denoiser: Compare prompts by the model's own answers, with a public atlas, in place of concepts: `policy`,
            `min_public_prompts` and `max_distance` are then unused. In simulations. None: by concepts.
        planner: Which planner of `fedaigc.planning` decides who shares which steps, from what the server knows. Then
            `max_distance` is unused. None: groups by `max_distance`, or by nodes of the atlas.
        planning: What the planner minimises, and what it knows.
        link: The simulated radio link of the packets; None: no link. Its bit errors need delivery "tolerant";
            otherwise a device refuses the packet and its task runs alone.
        deadline_s: Seconds after which devices that have not answered a message are counted as failed; None:
            wait until Flower gives the node up, on separate machines a quarter of an hour; `inf`: wait.
        between_rounds: Also serve waiting prompts after each round, not only after the last.
        window_s: Seconds to gather further prompts once one waits, before groups are formed; applies to
            `between_rounds` and `serve_s`.
        serve_s: Seconds to continue serving after the last round; `inf`: until the run is stopped.
    """

    enabled: bool = True
    num_inference_steps: Annotated[int, Field(ge=1)] = DEFAULT_STEPS
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] = ""
    true_cfg_scale: Annotated[float, Field(ge=0)] | None = None
    num_shared_steps: Annotated[int, Field(ge=0)] = DEFAULT_SHARED_STEPS
    policy: Policy = Policy.KIND
    min_public_prompts: Annotated[int, Field(ge=1)] = 3
    max_distance: Annotated[float, Field(ge=0, allow_inf_nan=True)] = MAX_DISTANCE
    topology: Topology = "edge"
    executor: Executor = Executor.EDGE
    costs: tuple[Annotated[int, Field(ge=0, le=MAX_PEER_COST)], ...] = ()
    edge_batch: Annotated[int, Field(ge=1)] = 1
    handoff: Literal["exact", "latents"] = "exact"
    delivery: Literal["strict", "tolerant"] = "strict"
    scorer: Literal["scenes", "clip", "none"] = "scenes"
    clip_model: str | None = None
    strip_steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    denoiser: DenoiserSection | None = None
    planner: PlannerName | None = None
    planning: PlanningSection = PlanningSection()
    link: LinkSettings | None = None
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=True)] | None = None
    between_rounds: bool = False
    window_s: Annotated[float, Field(ge=0)] = 0.0
    serve_s: Annotated[float, Field(ge=0, allow_inf_nan=True)] = 0.0

    @property
    def between_devices(self) -> bool:
        """Whether devices share among themselves, without an edge."""
        return self.topology in BETWEEN_DEVICES

    def cost(self, client: int) -> int:
        """Return what computing costs a client."""
        return self.costs[client % len(self.costs)] if self.costs else 0

    @property
    def arguments(self) -> dict[str, float]:
        """Further arguments of the pipeline call that the plan has."""
        return {} if self.true_cfg_scale is None else {"true_cfg_scale": self.true_cfg_scale}

    @property
    def continuous(self) -> bool:
        """Whether prompts are served at other times than only once at the end."""
        return self.between_rounds or self.serve_s > 0

    @property
    def ladder(self) -> tuple[int, ...]:
        """All hand-offs that devices may take, ascending; empty if every group has the same one."""
        further = self.denoiser.ladder if self.denoiser is not None else ()
        return (self.num_shared_steps, *further) if further else ()

    @model_validator(mode="before")
    @classmethod
    def _fewer_of_few(cls, values: Any) -> Any:
        """Share fewer of few steps, where the number is not given."""
        steps = values.get("num_inference_steps") if isinstance(values, dict) else None
        if type(steps) is not int or steps < 1:
            return values
        return {"num_shared_steps": default_shared_steps(steps)} | values

    @model_validator(mode="before")
    @classmethod
    def _devices_compute(cls, values: Any) -> Any:
        """Fill in what a topology without an edge leaves open: a member computes, and a device sends."""
        if not isinstance(values, dict) or values.get("topology") not in BETWEEN_DEVICES:
            return values
        found = {"executor": Executor.MEMBER.value} | values
        link = found.get("link")
        if isinstance(link, LinkSettings) and "tx_power_w" not in link.model_fields_set:
            found["link"] = link.model_copy(update={"tx_power_w": PHONE.tx_power_w})
        elif isinstance(link, dict):
            found["link"] = {"tx_power_w": PHONE.tx_power_w} | link
        return found

    @model_validator(mode="after")
    def _topology_fits(self) -> "GenerationSection":
        if self.costs and not self.between_devices:
            raise ValueError(
                f'costs: with topology "{self.topology}" no device is chosen by its cost; remove them, or set topology '
                'to "pair" or "cluster"'
            )
        if not self.between_devices:
            return self
        if self.executor is Executor.EDGE:
            raise ValueError(
                f'executor: topology "{self.topology}" has no edge; remove it, or set it to "member"'
            )
        section = self.denoiser
        if section is not None and (section.equal_prompts or section.conditioning != "public"):
            raise ValueError(
                f'denoiser.equal_prompts, denoiser.conditioning: with topology "{self.topology}" devices share on '
                "public prompts only; remove them"
            )
        if self.topology == "pair" and section is not None and section.min_devices > 2:
            raise ValueError('denoiser.min_devices: topology "pair" has groups of two devices; set it to 2')
        if self.topology == "pair" and self.planner is not None:
            raise ValueError(
                'planner: topology "pair" puts prompts together two by two; remove the planner, or set topology to '
                '"cluster"'
            )
        return self

    @model_validator(mode="after")
    def _who_waits(self) -> "GenerationSection":
        if self.clip_model is not None and self.scorer != "clip":
            raise ValueError(
                f'clip_model: scorer is "{self.scorer}", so no CLIP model is used; set it to "clip"'
            )
        if self.denoiser is not None and self.policy in (Policy.OPEN, Policy.SILENT):
            raise ValueError(
                f'policy: "{self.policy.value}" and the section denoiser exclude each other: remove one of them'
            )
        if self.denoiser is not None and self.denoiser.ladder:
            self._check_ladder(self.denoiser.ladder)
        if self.denoiser is not None and (self.negative_prompt or self.true_cfg_scale is not None):
            raise ValueError(
                "negative_prompt, true_cfg_scale: the section denoiser compares prompts without them: remove them or "
                "the section"
            )
        if self.denoiser is not None and self.denoiser.equal_prompts and self.link is not None:
            raise ValueError(
                "denoiser.equal_prompts and link exclude each other: what equal prompts share is encrypted, and the "
                "simulated link counts the bits of open packets; remove one of them"
            )
        if self.executor is not Executor.EDGE and self.link and self.link.send_above_db is not None:
            raise ValueError(
                'link.send_above_db: only the edge server waits for a channel; set executor to "edge"'
            )
        if self.edge_batch > 1 and self.executor is not Executor.EDGE:
            raise ValueError('edge_batch has no effect on members: set executor to "edge"')
        if self.edge_batch > 1 and self.denoiser is not None and self.denoiser.conditioning != "public":
            raise ValueError(
                f'edge_batch: denoiser.conditioning = "{self.denoiser.conditioning}" runs group by group; set '
                "edge_batch to 1"
            )
        if self.edge_batch > 1 and self.topology == "edges":
            raise ValueError(
                'edge_batch: with topology "edges" each edge has few groups; set edge_batch to 1'
            )
        self._check_planner()
        return self

    def _check_planner(self) -> None:
        if self.planner is None:
            if self.planning != PlanningSection():
                raise ValueError("planning has no effect without a planner: set generation.planner")
            return
        if not self.num_shared_steps:
            raise ValueError(
                "planner: num_shared_steps is 0, so nothing is shared; set it to the fewest shared steps"
            )
        if self.link is not None and self.link.send_above_db is not None:
            raise ValueError("planner and link.send_above_db exclude each other: remove one of them")
        if self.planner == "optimal" and self.continuous:
            raise ValueError(
                'planner: "optimal" plans a few tasks only, and between_rounds or serve_s may gather more; use '
                '"greedy_tree"'
            )
        if self.negative_prompt or self.true_cfg_scale is not None:
            raise ValueError(
                "negative_prompt, true_cfg_scale: a planner compares prompts without them: remove them or the planner"
            )
        section = self.denoiser
        if section is None:
            return
        if self.planning.of_concepts:
            raise ValueError(
                f"planning.{self.planning.of_concepts[0]}: the section denoiser has a calibration, tolerance and risk; "
                "set it there"
            )
        if section.atlas is not None and section.calibration is None:
            raise ValueError(
                "planner: a planner needs denoiser.calibration, which says what sharing costs; make one with `fedaigc "
                "calibrate`"
            )
        if self.planner in TREES and section.ladder and section.conditioning != "public":
            raise ValueError(
                f'planner: "{self.planner}" gives every node of a tree a conditioning of its own, and denoiser.'
                f'conditioning = "{section.conditioning}" has one for each group; use "two_levels" or "public"'
            )

    def _check_ladder(self, ladder: tuple[int, ...]) -> None:
        steps = (self.num_shared_steps, *ladder)
        if not self.num_shared_steps or any(later <= step for step, later in pairwise(steps)):
            raise ValueError(
                f"denoiser.ladder: hand-offs {list(ladder)} after num_shared_steps = {self.num_shared_steps}: expected "
                "at least one shared step, and each hand-off later than the one before"
            )
        if self.executor is not Executor.EDGE:
            raise ValueError(
                'denoiser.ladder: only the edge server hands off more than once; set executor to "edge"'
            )
        if self.link is not None and self.link.send_above_db is not None:
            raise ValueError("denoiser.ladder and link.send_above_db exclude each other: remove one of them")

    def absolute(self) -> "GenerationSection":
        """Return the section with absolute paths."""
        changed: dict[str, Any] = {}
        if self.clip_model is not None and Path(self.clip_model).exists():
            changed["clip_model"] = str(Path(self.clip_model).absolute())
        if self.denoiser is not None:
            changed["denoiser"] = self.denoiser.absolute()
        changed["planning"] = self.planning.absolute()
        return self.model_copy(update=changed)

    def for_devices(self) -> "GenerationSection":
        """Return what the devices of a deployment receive of it; all else has its default."""
        told = {name: getattr(self, name) for name in _OF_DEVICES}
        if self.scorer == "clip":
            # devices on separate machines report no scores, and know no folder of the server
            told["scorer"] = "none"
        if self.link is not None:
            told["link"] = self.link.for_receivers()
        if self.denoiser is not None:
            told["denoiser"] = self.denoiser.for_devices()
        return GenerationSection(**told)
