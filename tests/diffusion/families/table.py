"""Write the tables of docs/models.md: `python -m tests.diffusion.families.table`.

Each row of the first is measured: the small pipeline of a family, run divided at every step and undivided. The second
has the classes of `AutoPipelineForText2Image` that the first lacks, and what the code says of them.
"""

import math
import re
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines import auto_pipeline

from fedaigc.diffusion.adapters.stages import SharedState, Stage, install, install_personal, new_adapter
from fedaigc.diffusion.exactness import PROVEN, Exactness, check
from fedaigc.diffusion.sampling.pipeline_call import call_arguments
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.diffusion.families.family import Family, cast, prompted
from tests.diffusion.families.registered import SMALL_FAMILIES, small_family
from tests.diffusion.families.training import encoded, train_one_step
from tests.diffusion.tiny_pipelines import FAMILIES, SIZE, tiny_pipeline

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
# the only tables of the page that begin like this
_TABLE = re.compile(r"^\| pipeline \| scheduler .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
_OTHERS = re.compile(r"^\| class without a row .*?(?=\n\n)", re.MULTILINE | re.DOTALL)


def measured(family: Family, dtype: torch.dtype) -> Exactness:
    """Return what `check` measures of a family in a dtype."""
    return check(
        family.pipe.to(dtype),
        num_inference_steps=family.steps,
        guidance_scale=family.guidance_scale,
        sizes=[(family.side, family.side)],
        arguments=family.arguments,
        conditioning=cast(family.prompt, dtype),
    )


def rows() -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| pipeline | scheduler | call | float32 | bfloat16 | training |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    families: list[tuple[str, Any]] = [
        *((name, lambda name=name: prompted(tiny_pipeline(name), side=SIZE)) for name in FAMILIES),
        *((name, lambda name=name: small_family(name)) for name in SMALL_FAMILIES),
    ]
    for _, make in families:
        family = make()
        dtypes = (torch.float32, torch.bfloat16) if family.half else (torch.float32,)
        found = [measured(family, dtype) for dtype in dtypes]
        call = sorted({*family.arguments, *family.prompt} - {"prompt"})
        outcomes = [("exact" if each.exact else str(each)) for each in found]
        if not family.half:
            outcomes.append("stock call fails on a CPU")
        named = ", ".join(f"`{name}`" for name in call if not name.startswith("negative_")) or "a prompt"
        lines.append(
            f"| {found[0].pipeline} | {found[0].scheduler} | {named} | {' | '.join(outcomes)} | {training(make())} |"
        )
        print(lines[-1], file=sys.stderr)
    return lines


def training(family: Family) -> str:
    """Return whether a step of each stage trains, or why none does."""
    pipe = family.pipe
    start = new_adapter(pipe, generator=rng(0, "a"), rank=2)
    install(pipe, SharedState("base", start.lora, start.rank, start.alpha))
    install_personal(pipe, start)
    try:
        losses = [train_one_step(pipe, encoded(family), stage)[0] for stage in (Stage.SHARED, Stage.PERSONAL)]
    except UserError as error:
        reason = str(error)
        if "refuses these settings" in reason or "cannot be divided" in reason:
            return "no: its call refuses a prompt alone, or four steps"
        reason = reason.removeprefix(f"{type(pipe).__name__} can sample but not train here: ")
        # without the remedy, and without the class that the row names
        return f"no: {reason.split(': ')[0].split(f' of {type(pipe).__name__} ')[-1]}"
    except TypeError:
        return "not measured: the small one has no tokenizer"
    return "both stages" if all(map(math.isfinite, losses)) else f"losses {losses}"


def automatic_classes() -> dict[str, type]:
    """Return the classes that `AutoPipelineForText2Image` loads, by name."""
    return {each.__name__: each for each in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}


def other_rows() -> list[str]:
    """Return the lines of the table of classes without a small pipeline."""
    lines = ["| class without a row | what happens |", "| --- | --- |"]
    for name, kind in sorted(automatic_classes().items()):
        if name not in PROVEN:
            lines.append(f"| {name} | {_refusal(kind) or 'measured before its first run'} |")
    return lines


def _refusal(kind: type) -> str | None:
    """Return why no call of a class can be divided, None if that has to be measured."""
    try:
        call_arguments(
            object.__new__(kind),
            {},
            num_inference_steps=4,
            guidance_scale=1.0,
            negative_prompt="",
            height=64,
            width=64,
        )
    except UserError as error:
        return f"refused: {error}"
    return None


def main() -> None:
    """Measure all families, and write the tables into the page."""
    torch.set_num_threads(1)
    text = PAGE.read_text(encoding="utf-8")
    table, others = "\n".join(rows()), "\n".join(other_rows())
    text = _OTHERS.sub(lambda _: others, _TABLE.sub(lambda _: table, text, count=1), count=1)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
