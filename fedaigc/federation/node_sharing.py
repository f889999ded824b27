"""Atlas and calibration of a run, loaded once a process."""

import functools
from pathlib import Path

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace
from fedaigc.semantics.denoiser.shipped import sharing_files


def node_disclosure(config: FederationConfig) -> NodeDisclosure:
    """Return how devices disclose nodes under a configuration with the section `generation.denoiser`.

    Raises:
        UserError: If atlas or calibration is missing, damaged, or for another model or plan.
    """
    # what else a configuration says does not matter here, and would fill the cache
    generation = config.generation.model_copy(update={"topology": "edge"})
    told = FederationConfig(homes=Path(), output=Path(), model=config.model, generation=generation)
    return _loaded(told.model_dump_json())


@functools.lru_cache(maxsize=2)
def _loaded(text: str) -> NodeDisclosure:
    config = FederationConfig.model_validate_json(text)
    pipe, base_hash = base_model(config.model)
    return load_disclosure(pipe, base_hash, config)


def load_disclosure(pipe: Pipeline, base_hash: str, config: FederationConfig) -> NodeDisclosure:
    """Load the files that the section `generation.denoiser` of a configuration names.

    Args:
        pipe: The base model.
        base_hash: Its fingerprint.
        config: The configuration, with this section.

    Raises:
        UserError: If atlas or calibration is missing, damaged, or for another model or plan.
    """
    settings, section = config.generation, config.generation.denoiser
    if section is None:
        raise UserError("the configuration has no section generation.denoiser")
    space, plan = space_of(pipe, base_hash, config)
    atlas, curve = sharing_files(section.atlas, section.calibration, config.model.name)
    calibration = Calibration.read(curve) if curve is not None else None
    if calibration is not None:
        calibration.check_fits(space.hash, plan, str(curve))
    return NodeDisclosure(
        space,
        Atlas.read(atlas),
        section.min_captions,
        settings.num_shared_steps,
        calibration,
        tolerance=section.tolerance,
        risk=section.risk,
        ladder=section.ladder,
        epsilon=section.epsilon,
    )


def space_of(pipe: Pipeline, base_hash: str, config: FederationConfig) -> tuple[DenoiserSpace, DenoisingPlan]:
    """Return the space in which a run compares prompts, and the plan of the base model that it belongs to."""
    settings, section = config.generation, config.generation.denoiser
    plan = build_plan(
        pipe,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        height=config.model.height,
        width=config.model.width,
        base_hash=base_hash,
    )
    if section is None:
        return DenoiserSpace.of(plan), plan
    return DenoiserSpace.of(plan, section.noises, section.dimensions), plan
