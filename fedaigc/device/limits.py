"""Limits that the owner of a device sets for servers, below the bounds that hold for everyone."""

import math
from dataclasses import dataclass

from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.errors import UserError


@dataclass(frozen=True)
class OwnerLimits:
    """The owner's limits. A server that asks for more is refused, and nothing is computed.

    For orders to train, see also `training_limits`.

    Attributes:
        max_denoising_steps: Denoising steps of a plan.
        max_image_side: Image side in pixels, of plans and of images to train on; an aspect bucket of no more pixels may
            be longer on one side.
        max_guidance_scale: Guidance scale of a plan.
        negative_prompt: Whether a plan may have a negative prompt, a text of the server that pictures keep away from.
        boundary_timestep: t* as a training timestep, which a server may not move; None for a federation
            without a personal stage.
        max_weight_change: Change of a layer by a shared state, relative to its weights.
        max_picture_change: Change of a public picture by a shared state, in standard deviations.
        max_local_steps: Optimizer steps of the shared stage per order, together with the gradient batches
            that a strategy takes in addition.
        max_personal_steps: Optimizer steps of the personal stage per order.
        max_batch_size: Images per batch.
        max_rank: Rank of received factors and of the personal adapter.
        max_learning_rate: Learning rate of an order.
        max_condition_dropout: Condition dropout of an order.
        full_weights: Whether dense weights may be trained in place of factors.
        validation_loss: Whether a server may have images kept out of training and be told the loss on them.
        max_rounds_a_day: Rounds within 24 hours, over all orders and runs.
        max_rounds: Rounds over all orders and runs.
        max_passes: How often each private image is trained on in the shared stage, on average, over all
            orders and runs. A step counts as at least 8 images. It counts k > 1 times if it moves the weights
            k times as far as a step at a learning rate of 1e-3 from fresh factors
            (`training_limits.step_gain`).
        max_update_norm: Norm that an update is clipped to.
        max_bits_a_day: Bits that prompts may disclose within 24 hours, over all servers; then prompts run alone. A
            prompt counts about 8 bits under the policy `kind`; `device.home.ledger` says how bits are counted.
        max_epsilon_a_day: Sum of epsilon within 24 hours. With such a limit only nodes with noise are disclosed.
        max_node_epsilon: Largest epsilon of a disclosed node: nodes are drawn with at least this noise, whatever a
            server asks for. Infinity leaves it to the server; otherwise at most 20 counts. With a calibration, prompts
            then run alone where a server offers no ladder: the device could not keep to its tolerance.
        sums: Whether the text embeddings of a prompt may be given, masked, to the sum of a group. A hostile server that
            makes up the keys of all other members learns the prompt; see `trusted_keys` of the agent's settings.
        equal_prompts: Whether a server may have prompts compared with those of other devices, and learn which are
            equal.
    """

    max_denoising_steps: int = 150
    max_image_side: int = 1024
    max_guidance_scale: float = 30.0
    negative_prompt: bool = False
    boundary_timestep: int | None = 500
    max_weight_change: float = 1.0
    max_picture_change: float = 1.0
    max_local_steps: int = 40
    max_personal_steps: int = 200
    max_batch_size: int = 32
    max_rank: int = 16
    max_learning_rate: float = 3e-3
    max_condition_dropout: float = 0.1
    full_weights: bool = False
    validation_loss: bool = False
    max_rounds_a_day: int = 200
    max_rounds: int = 1000
    max_passes: float = 54.0
    max_update_norm: float = 12.0
    max_bits_a_day: float = 256.0
    max_epsilon_a_day: float = math.inf
    max_node_epsilon: float = math.inf
    sums: bool = False
    equal_prompts: bool = False

    def check_plan(self, request: PlanRequest) -> None:
        """Raise UserError for a plan beyond the limits."""
        asked = {
            "denoising steps": (request.num_inference_steps, self.max_denoising_steps),
            "pixels a side": (max(request.height, request.width), self.max_image_side),
            "guidance scale": (request.guidance_scale, self.max_guidance_scale),
            "true_cfg_scale": (request.true_cfg_scale or 0.0, self.max_guidance_scale),
        }
        if request.negative_prompt and not self.negative_prompt:
            raise UserError(
                "the plan has a negative prompt, which the owner of this device does not permit: start it with "
                "--negative-prompt"
            )
        for what, (value, limit) in asked.items():
            if value > limit:
                raise UserError(
                    f"{what}: the server requests {value}, the owner of this device permits {limit}"
                )
