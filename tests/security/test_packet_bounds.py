"""Packets of other shapes or with values that no scheduler has."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from fedaigc.collaboration.session import FinishOrder, ShareOrder
from fedaigc.deployment.agent.agent import Agent
from fedaigc.device.replies import SharedSteps
from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import PacketError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.server import generation
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire import generation_messages, messages
from fedaigc.federation.wire.messages import FAILURE, Ask
from tests.diffusion.schedulers import DIFFUSION, FLOW, MORE_DIFFUSION, scheduler_of
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline
from tests.quick_cases import quick_first
from tests.security.orders import changed


class TestPackets:
    @pytest.fixture
    def plan(self, config: FederationConfig) -> Any:
        return generation.plan_generation(initial_shared_state(config), config)

    @pytest.fixture
    def pipe(self, config: FederationConfig) -> Any:
        return base_model(config.model)[0]

    def helper(
        self, pipe: Any, plan: Any, config: FederationConfig, latents: Any, history: Any = None
    ) -> Any:
        """Read a helper's packet with these latents as the server does."""
        state = replace(initial_state(pipe, plan, 1), step=2, latents=latents, history=history or {})
        record = generation_messages.shared_steps_record(SharedSteps(pack(state, plan), 2, 4))
        order = ShareOrder(0, "0" * 16, "a fruit on a table", 1, plan, 2)
        shape = tuple(initial_state(pipe, plan, 1).latents.shape)
        try:
            return generation._shared_steps(record, order, shape)
        except TypeError:  # b8a6c4d
            older: Any = generation._shared_steps
            return older(record, order)

    @pytest.mark.parametrize(
        "latents",
        [
            torch.zeros(1, 4, 128, 128),
            torch.zeros(64, 4, 16, 16),
            torch.zeros(1, 4, 16, 15),
            torch.zeros(1, 4, 16, 16, dtype=torch.float64),
            torch.full((1, 4, 16, 16), 1e20),
            torch.full((1, 4, 16, 16), float("nan")),
        ],
    )
    def test_the_server_refuses_another_shape_or_size(
        self, pipe: Any, plan: Any, config: FederationConfig, latents: torch.Tensor
    ) -> None:
        """A member continued with the received packet, which took 86 s instead of 1.1 s."""
        with pytest.raises(PacketError):
            self.helper(pipe, plan, config, latents)

    @pytest.mark.parametrize(
        "history",
        [
            {"model_outputs": [torch.zeros(1, 4, 512, 512)]},
            {"model_outputs": [torch.zeros(1, 4, 16, 16)] * 20},
            {f"value_{number}": 0 for number in range(100)},
            {"last_sample": torch.full((1, 4, 16, 16), 1e30)},
        ],
    )
    def test_the_server_refuses_such_a_history(
        self, pipe: Any, plan: Any, config: FederationConfig, history: Any
    ) -> None:
        with pytest.raises(PacketError):
            self.helper(pipe, plan, config, torch.zeros(1, 4, 16, 16), history)

    def test_the_honest_packet_is_taken(self, pipe: Any, plan: Any, config: FederationConfig) -> None:
        assert self.helper(pipe, plan, config, torch.randn(1, 4, 16, 16)).denoiser_calls == 2

    def test_a_member_refuses_it_before_it_computes(
        self, pipe: Any, plan: Any, config: FederationConfig, agent: Agent, within: Callable[..., None]
    ) -> None:
        shared = initial_shared_state(config)
        agent.answer(Ask.INSTALL, changed(config), messages.shared_state_record(shared))
        (task_id, *_) = agent.open_device().waiting()
        state = replace(initial_state(pipe, plan, 1), step=2, latents=torch.zeros(1, 4, 256, 256))
        order = FinishOrder(0, task_id, plan, 1, pack(state, plan))
        told = agent.answer(Ask.FINISH, changed(config), generation_messages.finish_record(order))
        assert FAILURE in told
        assert "shape [1, 4, 256, 256]" in (config.home(0) / "errors.log").read_text()

    def test_a_header_is_bounded(self, pipe: Any, plan: Any, within: Callable[..., None]) -> None:
        good = pack(initial_state(pipe, plan, 1), plan)
        with pytest.raises(PacketError, match="header of 4294967295 bytes"):
            unpack(good[:6] + b"\xff" * 4 + good[10:], plan)


pipelines = cache(tiny_pipeline)


def scheduler_cases() -> list[tuple[str, str]]:
    cases = [("sd1", name) for name in DIFFUSION | MORE_DIFFUSION]
    return cases + [(family, name) for family, names in FLOW.items() for name in names]


@pytest.mark.parametrize(("family", "name"), quick_first(scheduler_cases(), 3))
def test_no_scheduler_s_honest_packet_is_refused(family: str, name: str) -> None:
    """For a strongly guided network with random weights, whose values are larger than those of a trained one."""
    from fedaigc.diffusion.handoff.packing import check_magnitude
    from fedaigc.diffusion.sampling.segment import latents_shape

    pipe = pipelines(family)
    pipe.scheduler = scheduler_of(family, name)
    plan = build_plan(
        pipe, num_inference_steps=4, guidance_scale=7.5, height=SIZE, width=SIZE, base_hash="base"
    )
    state = initial_state(pipe, plan, 1)
    shape = latents_shape(pipe, plan)
    for step in (1, plan.num_steps - 1):
        state = run_segment(pipe, state, {"prompt": "a cat"}, plan, step)
        found = unpack(pack(state, plan), plan, shape=shape)
        check_magnitude(found, plan)
        assert torch.equal(found.latents, state.latents)
