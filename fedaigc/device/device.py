"""The device: the only place that holds prompts and images.

What a server asks for is computed here; `federation.client.handlers` makes the replies of it, and docs/threats.md lists
what they hold ("What a device sends"). The stores of a `Device` (`images`, `prompts`, `gallery`, `versions`, ...) are
private. In a simulation, the client app calls a `Device` in its own process; behind an agent, the same object answers
over a socket.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fedaigc.data.pictures.reading import AS_STORED, Reading
from fedaigc.device.acceptance import check_form, check_limits
from fedaigc.device.add_pictures import Added, add_pictures
from fedaigc.device.disclosing import Discloser
from fedaigc.device.home.gallery import Begun, Finished, Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.device.home.prompts import PromptQueue, Task
from fedaigc.device.home.sums import SumLog
from fedaigc.device.home.versions import AdapterVersions
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure, FinishReport, SharedSteps, coarse
from fedaigc.device.scoring import Scorer, scored
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.device.shared_work import SharedWork, SharedWorkLog
from fedaigc.device.training.encoded_cache import encoded_images
from fedaigc.device.training.held_out import held_out_loss, split_images
from fedaigc.device.training.local_round import local_round, put_adapters
from fedaigc.device.training.training_limits import RoundBudget, TrainingOrder
from fedaigc.diffusion.adapters.bare import bare_fingerprint
from fedaigc.diffusion.adapters.stages import SharedState, TargetModules, finish_stages, run_stages
from fedaigc.diffusion.exactness import prove_plan
from fedaigc.diffusion.handoff.packing import (
    Delivery,
    Handoff,
    check_handoff,
    check_magnitude,
    mended,
    unpack,
)
from fedaigc.diffusion.sampling.denormals import flushed_denormals
from fedaigc.diffusion.sampling.noise_matched import BitErrors, expected_error, resume_noise_matched
from fedaigc.diffusion.sampling.segment import (
    DenoiserCount,
    DenoisingState,
    decode,
    initial_state,
    latents_shape,
)
from fedaigc.diffusion.schedule.plan import DenoisingPlan, even_steps
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import Signature
from fedaigc.strategy.client_rule import ClientRule, Received
from fedaigc.strategy.rule import Update
from fedaigc.wireless.number_format import FormatName
from fedaigc.wireless.repair import Repair

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Device:
    """One user's device: a home that any process can reopen, and a pipeline.

    Args:
        home: Folder of the home, created if it does not exist.
        seed: Seed of a new home; see `Home.open`.
        pipe: diffusers pipeline. Several devices of a process may share it; each installs its own adapters.
        base_hash: `base_fingerprint` of the bare pipeline; None: taken now.
        taxonomy: The knowledge graph; None: loaded.
        scorer: Scores finished images; without one, reports hold counts only.
        strip_pictures: Number of intermediate images if no steps are requested; each costs a decoding.
        run_seed: Seed of training in place of the random one of a home that is not `seeded`.
    """

    def __init__(
        self,
        home: str | Path,
        pipe: "DiffusionPipeline",
        *,
        base_hash: str | None = None,
        taxonomy: Taxonomy | None = None,
        seed: int | None = None,
        scorer: Scorer | None = None,
        strip_pictures: int = 0,
        run_seed: int | None = None,
    ) -> None:
        self._home = Home.open(Path(home), seed)
        self._training_seed = self._home.seed if run_seed is None or self._home.seeded else run_seed
        self.pipe = pipe
        self._taxonomy = Taxonomy.load() if taxonomy is None else taxonomy
        self._scorer = scorer
        self._strip_pictures = strip_pictures
        self.base_hash = bare_fingerprint(pipe) if base_hash is None else base_hash
        self.images = ImageStore(self._home)
        self.prompts = PromptQueue(self._home)
        self.versions = AdapterVersions(self._home)
        self.gallery = Gallery(self._home)
        self.shared_work = SharedWorkLog(self._home)
        self.sums = SumLog(self._home)

    def add_images(
        self,
        source: str | Path | Iterable[Mapping[str, Any]],
        reading: Reading = AS_STORED,
        *,
        again: bool = False,
    ) -> Added:
        """Add images from a folder or the rows of a `datasets.Dataset`; those already there only with `again`.

        Raises UserError for an entry without an image or a caption; then nothing is added.
        """
        return add_pictures(self.images, source, reading, again=again)

    def add_prompt(self, text: str) -> str:
        """Queue a prompt and return its task id; UserError if it is empty or over 1,000 characters."""
        return self.prompts.add(text)

    def waiting(self) -> list[str]:
        """Return the ids of the tasks without an image, oldest first."""
        return [task.task_id for task in self.prompts.waiting()]

    def unreadable(self) -> int:
        """Return how many prompts of the queue cannot be read; `PromptQueue.readable` names them."""
        return len(self.prompts.readable()[1])

    def signature(
        self,
        task_id: str,
        policy: Policy = Policy.KIND,
        limits: OwnerLimits | None = None,
        *,
        min_public_prompts: int = 3,
    ) -> Signature | None:
        """Return what may be disclosed of a prompt; None if the task must run alone. See `Discloser.concepts`."""
        return Discloser(self.prompts, limits).concepts(task_id, policy, self._taxonomy, min_public_prompts)

    def receive(self, shared: SharedState) -> str:
        """Store a shared state and return its version hash; DeviceError for another base model."""
        self._check_base(shared.base_hash, "shared state")
        return self.versions.save_shared(shared)

    def accept(self, shared: SharedState, *, residual: bool, limits: OwnerLimits | None) -> None:
        """Check a shared state before anything is computed with it; see `check_form` and `check_limits`.

        Raises DeviceError for another base model, another form, or a state beyond the limits (if any).
        """
        self._check_base(shared.base_hash, "shared state")
        check_form(self.pipe, shared, residual=residual)
        if limits is not None:
            check_limits(self.pipe, shared, self.base_hash, limits)

    def plan(self, request: PlanRequest, limits: OwnerLimits | None = None) -> DenoisingPlan:
        """Build the requested plan; UserError beyond the owner's limits, or if it cannot be built here."""
        if limits is not None:
            limits.check_plan(request)
        return request.build(self.pipe, self.base_hash)

    def train(
        self,
        run: str,
        received: Received,
        rule: ClientRule,
        settings: TrainingSettings,
        *,
        local_steps: int,
        personal_rank: int,
        height: int,
        width: int,
        target_modules: TargetModules | None = None,
        client: int = 0,
        budget: RoundBudget | None = None,
        validation_fraction: float = 0.0,
    ) -> Update:
        """Train one round: the shared stage as `rule` specifies, then the personal stage.

        The personal adapter (of rank `personal_rank` if new) and the rule's memory are written to the home as
        version (run, round) and go nowhere else. A repeated round starts from the version before it and ends
        with the same weights.

        Args:
            height: Height at which images are read, in pixels.
            width: Width at which images are read, in pixels.
            target_modules: Layers of new factors, as in `selected_layers`; None: the default ones.
            client: Number under which the server knows this device.
            budget: What the owner lets this order compute; None for no limit.
            validation_fraction: Share of the images that are kept out of training.

        Returns the rule's upload and the mean loss by stage and on the images kept out, not rounded. Raises
        DeviceError without images, for another base model, a round that does not follow a kept one, an order
        beyond the budget, and training that diverged, of which nothing is kept.
        """
        self.versions.check_follows(run, received.round)
        if not len(self.images):
            raise DeviceError(Failure.NO_IMAGES, f"no images in {self._home.root}")
        self._check_base(received.shared.base_hash, "shared state")
        personal, memory = self.versions.before(run, received.round)
        if budget is not None:
            budget.begin(len(self.images), memory)
        self.receive(received.shared)
        buckets, seed = settings.aspect_buckets, self._training_seed
        images = encoded_images(self.images, self.pipe, self.base_hash, height, width, buckets)
        data, held_out = split_images(images, validation_fraction, seed)
        validation = held_out_loss(self.pipe, received.shared, held_out, settings, seed)
        result, trained, losses = local_round(
            self.pipe,
            received,
            personal,
            memory,
            rule,
            data,
            settings,
            seed=seed,
            local_steps=local_steps,
            rank=personal_rank,
            target_modules=target_modules,
            budget=budget,
        )
        # a later round would start from what this one leaves
        left = [*result.upload.values(), *result.memory.values()]
        left += trained.tensors().values() if trained is not None else ()
        if not all(bool(tensor.isfinite().all()) for tensor in left):
            raise DeviceError(Failure.DIVERGED, "training ended with values that are not finite")
        self.versions.save_round(run, received.round, trained or personal, result.memory)
        rank = received.shared.rank if result.rank is None else result.rank
        return Update(client, len(data), local_steps, result.upload, rank, losses | validation)

    def budget(self, limits: OwnerLimits, order: TrainingOrder) -> RoundBudget:
        """Return what the owner lets a server have computed for this order."""
        return RoundBudget(self._home, limits, order)

    def share(
        self,
        task_id: str,
        prompt: str,
        plan: DenoisingPlan,
        stop: int,
        *,
        noise_seed: int,
        handoff: Handoff = "exact",
        number_format: FormatName | None = None,
        conditioning: Mapping[str, Tensor] | None = None,
    ) -> SharedSteps:
        """Run the shared steps of a group that this device's task belongs to.

        `prompt` is the group's. The packet holds its latents, or those of the order's conditioning, under the shared
        state, and is not encrypted: the task's own prompt is passed by `federation.client.equality` alone, which
        seals it. Raises UnknownTask for a task that is not here, UserError for a `stop` past t*, DeviceError for
        another base or shared state.
        """
        task = self.prompts.get(task_id)
        plan = self._prepare(plan, personal=False)
        steps = run_shared_steps(
            self.pipe,
            prompt,
            plan,
            stop,
            noise_seed=noise_seed,
            handoff=handoff,
            number_format=number_format,
            conditioning=conditioning,
        )
        self.shared_work.add(SharedWork(task.task_id, stop))
        return steps

    def finish(
        self,
        task_id: str,
        packet: bytes,
        plan: DenoisingPlan,
        *,
        noise_seed: int | None = None,
        delivery: Delivery = "strict",
        mend: Repair = "nothing",
        errors: BitErrors | None = None,
        strip_steps: Sequence[int] = (),
    ) -> FinishReport:
        """Finish a task from a packet with its own prompt, store the image in the gallery, and report.

        The attempt is counted once plan and packet are sound, before the prompt is read. Steps up to t* use the shared
        weights, the others the personal ones.

        Args:
            noise_seed: Seed of this task's own noise stream; None refuses a sampler that draws noise.
            mend: Repair of implausible values under tolerant delivery; values still not finite are refused.
            errors: Link errors under tolerant delivery: resume at the noise level that they leave, at first
                order and without a strip. The report counts the additional steps.
            strip_steps: Steps before which the latents are decoded and stored with the image.

        Raises PacketError for a damaged packet or one of another plan, UserError for a hand-off past t*,
        UnknownTask for a task that does not wait, DeviceError as `share`.
        """
        plan = self._prepare(plan, personal=True)
        state = unpack(packet, plan, delivery, latents_shape(self.pipe, plan))
        if delivery == "tolerant":
            state = mended(state, plan, mend)
        else:
            check_magnitude(state, plan)
        check_handoff(plan, state.step)
        task = self.prompts.begin_attempt(task_id)
        if errors is not None and delivery == "tolerant" and errors.rate > 0:
            return self._resume(task, state, plan, errors)
        # samplers that draw noise: each member continues with its own stream, whatever the packet contains
        state = replace(state, noise_seed=noise_seed, draw_count=0)
        return self._complete(task, state, plan, strip_steps)

    def alone(
        self, task_id: str, noise_seed: int, plan: DenoisingPlan, *, strip_steps: Sequence[int] = ()
    ) -> FinishReport:
        """Run all steps of a task here, from the noise of `noise_seed`, and otherwise as `finish`."""
        plan = self._prepare(plan, personal=True)
        state = initial_state(self.pipe, plan, noise_seed)
        return self._complete(self.prompts.begin_attempt(task_id), state, plan, strip_steps)

    def _prepare(self, plan: DenoisingPlan, *, personal: bool) -> DenoisingPlan:
        """Install the plan's weights in the pipeline and return the plan with their t*."""
        self._check_base(plan.base_hash, "plan")
        prove_plan(self.pipe, plan)  # also a run alone is divided, at t*
        shared = self.versions.shared(plan.shared_hash) if plan.shared_hash else None
        put_adapters(self.pipe, shared, self.versions.drawing_personal() if personal else None)
        return replace(plan, boundary_log_snr=shared.boundary_log_snr if shared is not None else None)

    def _check_base(self, base_hash: str, what: str) -> None:
        if base_hash != self.base_hash:
            raise DeviceError(
                Failure.BASE_DIFFERS,
                f"the {what} is for base model {base_hash}, this device has {self.base_hash}",
            )

    def _complete(
        self,
        task: Task,
        state: DenoisingState,
        plan: DenoisingPlan,
        strip_steps: Sequence[int],
    ) -> FinishReport:
        start = state.step
        asked = strip_steps or even_steps(start, plan.num_steps, self._strip_pictures)
        shown = tuple(sorted({step for step in asked if start <= step < plan.num_steps}))
        if shown:
            self.gallery.begin(Begun(task.task_id, start, plan.num_steps, plan.boundary, shown))
        with DenoiserCount(self.pipe) as count, flushed_denormals():
            for number, stop in enumerate(shown):
                state = run_stages(self.pipe, state, {"prompt": task.prompt}, plan, stop)
                (part,) = decode(self.pipe, state, plan)
                self.gallery.save_part(task.task_id, number, part)
            (image,) = finish_stages(self.pipe, state, {"prompt": task.prompt}, plan)
        return self._keep(task, image, count, plan, start, shown)

    def _resume(
        self, task: Task, state: DenoisingState, plan: DenoisingPlan, errors: BitErrors
    ) -> FinishReport:
        gain, variance = expected_error(plan, state.step, errors)
        with DenoiserCount(self.pipe) as count, flushed_denormals():
            (image,), taken = resume_noise_matched(
                self.pipe, state, {"prompt": task.prompt}, plan, gain=gain, error_variance=variance
            )
        return self._keep(task, image, count, plan, max(0, plan.num_steps - taken), ())

    def _keep(
        self,
        task: Task,
        image: Any,
        count: DenoiserCount,
        plan: DenoisingPlan,
        start: int,
        shown: tuple[int, ...],
    ) -> FinishReport:
        confidence = scored(self._scorer, image, task.prompt, self._taxonomy)
        report = FinishReport(
            shared_stage_steps=max(0, plan.boundary - start),
            personal_stage_steps=plan.num_steps - max(start, plan.boundary),
            denoiser_calls=count.calls,
            denoiser_samples=count.samples,
            object_confidence=None if confidence.object is None else coarse(confidence.object),
            place_confidence=None if confidence.place is None else coarse(confidence.place),
            clip_score=None if confidence.clip is None else round(confidence.clip, 1),
        )
        entry = Finished(
            task.task_id,
            task.prompt,
            start,
            plan.num_steps,
            plan.boundary,
            plan.fingerprint(),
            asdict(report),
            shown,
        )
        self.gallery.save(entry, image)
        self.prompts.finish(task.task_id)
        return report
