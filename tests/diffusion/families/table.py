"""Write the table of docs/models.md: `python -m tests.diffusion.families.table`.

Each row is measured: the small pipeline of a family, run divided at every step and undivided.
"""

import re
import sys
from pathlib import Path
from typing import Any

import torch

from fedaigc.diffusion.exactness import Exactness, check
from tests.diffusion.families.family import Family, cast, prompted
from tests.diffusion.families.small_families import SMALL_FAMILIES, small_family
from tests.diffusion.tiny_pipelines import FAMILIES, SIZE, tiny_pipeline

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
# the only table of the page that begins like this
_TABLE = re.compile(r"^\| pipeline \| scheduler .*?(?=\n\n)", re.MULTILINE | re.DOTALL)


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
    lines = ["| pipeline | scheduler | call | float32 | bfloat16 |", "| --- | --- | --- | --- | --- |"]
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
        lines.append(f"| {found[0].pipeline} | {found[0].scheduler} | {named} | {' | '.join(outcomes)} |")
        print(lines[-1], file=sys.stderr)
    return lines


def main() -> None:
    """Measure all families, and write the table into the page."""
    torch.set_num_threads(1)
    text = PAGE.read_text(encoding="utf-8")
    table = "\n".join(rows())
    PAGE.write_text(_TABLE.sub(lambda _: table, text, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
