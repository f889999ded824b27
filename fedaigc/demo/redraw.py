"""The demo's run once more, on the devices' side: solo images, single denoising steps, and styles."""

from diffusers import DiffusionPipeline
from PIL import Image

from fedaigc.collaboration.link import Member, SimulatedLink
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.collaboration.results import GroupRecord, TaskRecord
from fedaigc.device.device import Device
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.adapters.stages import SharedState, finish_stages, run_stages
from fedaigc.diffusion.handoff.packing import mended, pack, unpack
from fedaigc.diffusion.sampling.segment import DenoisingState, decode, initial_state
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import GenerationRecord
from fedaigc.federation.preloaded import base_model, scene_scorer, taxonomy


class Redraw:
    """Draws what the run drew, and more, with the run's own weights, plan and homes.

    It acts as the owner of all devices and opens their homes, which no server can.

    Attributes:
        pipe: The diffusion pipeline.
        shared: Shared state of the run.
        plan: Denoising plan of the run.
        devices: The devices, indexed by client.
    """

    pipe: DiffusionPipeline
    shared: SharedState
    plan: DenoisingPlan
    devices: list[Device]

    def __init__(self, config: FederationConfig, generation: GenerationRecord) -> None:
        self._config = config
        self.pipe, base_hash = base_model(config.model)
        self.shared = load_shared_state(config.output)
        self.plan = build_plan(
            self.pipe,
            num_inference_steps=config.generation.num_inference_steps,
            guidance_scale=config.generation.guidance_scale,
            height=config.model.height,
            width=config.model.width,
            base_hash=base_hash,
            shared_hash=self.shared.hash(),
            boundary_log_snr=self.shared.boundary_log_snr,
        )
        if self.plan.fingerprint() != generation.plan:
            raise RuntimeError(
                f"the report's plan {self.plan.fingerprint()} is not the run's {generation.plan}"
            )
        self.devices = [
            Device(
                config.home(client),
                self.pipe,
                base_hash=base_hash,
                taxonomy=taxonomy(),
                scorer=scene_scorer(),
            )
            for client in range(config.num_clients)
        ]

    def prompt(self, task: TaskRecord) -> str:
        """Return the private prompt of a task."""
        return self.devices[task.client].prompts.get(task.task_id).prompt

    def image(self, task: TaskRecord) -> Image.Image:
        """Return the image that the run drew for a task."""
        return self.devices[task.client].gallery.image(task.task_id)

    def alone(self, group: GroupRecord, task: TaskRecord) -> Image.Image:
        """Draw the prompt of a task from the same noise without shared steps."""
        device = self.devices[task.client]
        again = device.add_prompt(self.prompt(task))
        device.alone(again, group.noise_seed, self.plan)
        return device.gallery.image(again)

    def frames(self, group: GroupRecord, task: TaskRecord) -> list[Image.Image]:
        """Repeat a task exactly, link included, and decode after each step."""
        put_adapters(self.pipe, self.shared, self.devices[task.client].versions.current_personal())
        prompt = self.prompt(task)
        state = initial_state(self.pipe, self.plan, group.noise_seed)
        frames, shared = [], task.handoff_step or 0
        for step in range(self.plan.num_steps):
            text = group.prompt if step < shared else prompt
            state = run_stages(self.pipe, state, {"prompt": text}, self.plan, step + 1)
            frames += decode(self.pipe, state, self.plan)
            if step + 1 == shared:
                state = self._received(state, task)
        return frames

    def style(self, client: int, prompts: tuple[str, ...], seed: int, *, personal: bool) -> list[Image.Image]:
        """Draw prompts without shared steps, with or without the personal adapter of a device.

        Args:
            client: Number of the device.
            prompts: The prompts; prompt i starts from the noise of `seed` + i.
            seed: Seed of the noise.
            personal: Whether the personal adapter is installed.
        """
        adapter = self.devices[client].versions.current_personal() if personal else None
        put_adapters(self.pipe, self.shared, adapter)
        images = []
        for number, prompt in enumerate(prompts):
            state = initial_state(self.pipe, self.plan, seed + number)
            images += finish_stages(self.pipe, state, {"prompt": prompt}, self.plan)
        return images

    def _received(self, state: DenoisingState, task: TaskRecord) -> DenoisingState:
        """Return the state at the hand-off step as the device of the task received it in the run."""
        generation = self._config.generation
        link = generation.link or LinkSettings(number_format=None)
        packet = pack(state, self.plan, generation.handoff, link.number_format)
        member = Member(task.task_id, task.client)
        arrived, _ = SimulatedLink(link, self._config.seed).send({member: packet})[member]
        return mended(unpack(arrived, self.plan, "tolerant"), self.plan, link.mend)
