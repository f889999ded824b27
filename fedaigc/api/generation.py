"""Prompts that are drawn together, and what a device discloses of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fedaigc.api.runs import reporting
from fedaigc.api.saved_model import model_section
from fedaigc.collaboration.results import GroupRecord
from fedaigc.counting import counted
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.errors import UserError
from fedaigc.federation.output.records import RunRecord, Tasks
from fedaigc.federation.output.run_summary import generation_lines
from fedaigc.federation.preloaded import taxonomy
from fedaigc.federation.progress import OnProgress
from fedaigc.generation import GenerateSettings, chosen_steps, node_settings, run_generate
from fedaigc.semantics import signature as signatures
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.policy import LEAST_FIRST, Policy
from fedaigc.semantics.signature import Signature
from fedaigc.validation import checked_prompt


@dataclass(frozen=True)
class Generation:
    """Images that were drawn together.

    Attributes:
        prompts: The prompts, one a device.
        images: The image of each prompt.
        record: All figures.
    """

    prompts: tuple[str, ...]
    images: tuple[Image.Image, ...]
    record: RunRecord

    def __repr__(self) -> str:
        return (
            f"<Generation of {counted(len(self.prompts), 'prompt')} in {counted(len(self.groups), 'group')}>"
        )

    @property
    def groups(self) -> tuple[GroupRecord, ...]:
        """The groups, including those of a single prompt; `group.tasks[0].client` is an index into `prompts`."""
        return self.record.generation.groups if self.record.generation is not None else ()

    @property
    def tasks(self) -> Tasks:
        """The prompts as tasks; `tasks.to_pandas()` has one row a prompt."""
        return self.record.tasks

    def summary(self) -> str:
        """Return what became of the prompts: the groups, what each device disclosed, and the steps that were saved."""
        return "\n".join(generation_lines(self.record))


def generate(
    prompts: Sequence[str],
    *,
    output: str | Path = "runs/generate",
    model: str | Mapping[str, Any] | Pipeline = "embedded",
    num_inference_steps: int | None = None,
    num_shared_steps: int | None = None,
    guidance_scale: float = 5.0,
    policy: Policy | str = Policy.KIND,
    nodes: bool = False,
    atlas: str | Path | None = None,
    calibration: str | Path | None = None,
    seed: int = 0,
    progress: bool | OnProgress = True,
    **settings: Any,
) -> Generation:
    """Draw one image per prompt, each on its own device, as `fedaigc generate` does.

    Prompts with similar meaning form a group, whose first steps run once.

    Example:
        >>> import fedaigc as fa
        >>> drawn = fa.generate(["an apple on a table", "a lemon on a table"], progress=False)
        >>> drawn.groups[0].prompt, drawn.groups[0].evaluations, drawn.groups[0].solo_evaluations
        ('a fruit on a table', 19, 22)

        Of prompts in any words, the model itself says which are alike:

        >>> drawn = fa.generate(
        ...     ["a doggo near a river", "a horse near a river"], nodes=True, calibration="scenes", progress=False
        ... )
        >>> drawn.groups[0].evaluations, drawn.groups[0].solo_evaluations
        (15, 22)

    Args:
        prompts: One prompt per device.
        output: Folder for the images; those of an earlier call are replaced.
        model: "embedded", a diffusers folder, a hub name, a pipeline, which is saved next to `output` first, or the
            section `model` of a configuration.
        num_inference_steps: Number N of denoising steps (`--steps` of the command). None: 11, or as few as the model is
            made for, such as 4 of "embedded-lcm".
        num_shared_steps: Number K of steps that a group shares (`--shared-steps`). None: 3, or N / 3 if N is below 9.
        guidance_scale: Classifier-free guidance scale (`--guidance`).
        policy: What devices disclose; see `disclose`.
        nodes: Compare prompts, of any words, by nodes of an atlas, and let each device decide how many steps it shares,
            from `num_shared_steps` on.
        atlas: File of the atlas, for `nodes`; None: the one that ships with the embedded model.
        calibration: File of the calibration, for `nodes`; "scenes": the one that ships for captions of Scenes; None:
            with the shipped atlas, the one that ships for captions of any words.
        seed: Seed of the run.
        progress: Whether to show progress bars, or a function that is called with each step.
        **settings: Further keys of the section `generation` of a configuration, such as `executor="member"`, or
            `link={"snr_db": 12.0}` with `delivery="tolerant"`.

    Raises:
        UserError: If a prompt or a setting is wrong, the model is missing, or `output` contains other files.
    """
    if isinstance(prompts, str):
        raise UserError(f"prompts is one text, {prompts!r:.60}: expected a list with one prompt per device")
    if not prompts:
        raise UserError("no prompts: give at least one")
    folder = Path(output)
    generation = {
        **chosen_steps(num_inference_steps, num_shared_steps),
        "guidance_scale": guidance_scale,
        "policy": policy,
        **settings,
    }
    if nodes:
        files = [None if path is None else Path(path) for path in (atlas, calibration)]
        generation |= node_settings(str(model), files[0], files[1], num_shared_steps)
    elif not (atlas is None and calibration is None):
        raise UserError("atlas and calibration are for nodes=True: give that too")
    section = model_section(model, folder.with_name(f"{folder.name}-model"))
    with reporting(progress) as told:
        record = run_generate(prompts, GenerateSettings(folder, seed, section, generation), told)
    images = []
    for number in range(len(prompts)):
        with Image.open(folder / f"{number:02d}.png") as image:
            images.append(image.copy())
    return Generation(tuple(prompts), tuple(images), record)


def disclose(
    prompt: str, *, policy: Policy | str = Policy.KIND, min_public_prompts: int = 3
) -> Signature | None:
    """Return what a device would disclose of a prompt to the server, as `fedaigc disclose` shows it.

    Example:
        >>> import fedaigc as fa
        >>> fa.disclose("a shiny apple on a table").words
        'a fruit on a table'

    Args:
        prompt: The prompt. It is sent nowhere.
        policy: "silent", "general", "kind", "exact" or "open", from the least to the most.
        min_public_prompts: Objects of Scenes (under "general" also places) that must share a signature. 1: no
            guarantee.

    Returns:
        The signature, whose `words` say what is disclosed, or None if the prompt is drawn alone.

    Raises:
        UserError: If the prompt is empty or too long, the policy is unknown, or `min_public_prompts` is below 1.
    """
    if policy not in LEAST_FIRST:
        known = ", ".join(f'"{known}"' for known in LEAST_FIRST)
        raise UserError(f"policy {policy!r:.60} is unknown: expected one of {known}")
    if min_public_prompts < 1:
        raise UserError(f"min_public_prompts must be at least 1, got {min_public_prompts}")
    graph = taxonomy()
    parsed = parse(checked_prompt(prompt), graph)
    return signatures.disclose(parsed, Policy(policy), graph, min_public_prompts)
