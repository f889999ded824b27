"""`fedaigc check`: whether the divided runs of a model equal its stock call on this machine."""

from typing import Annotated

import typer

from fedaigc.cli.options import DtypeOption, Guidance, TorchDevice, Variant


def check(
    model: Annotated[str, typer.Argument(help='"embedded", a diffusers folder or a hub name.')] = "embedded",
    steps: Annotated[int, typer.Option(min=2, help="Number N of denoising steps.")] = 4,
    guidance: Guidance = 5.0,
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=8, help="Height and width in pixels. Repeatable. Default: two sizes below the model's."
        ),
    ] = None,
    device: TorchDevice = "auto",
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    again: Annotated[bool, typer.Option("--again", help="Measure even if a result is kept.")] = False,
) -> None:
    """Run a model divided and undivided, and tell whether the results are equal bit for bit.

    The result is kept for the same weights, libraries and settings. The exit status is 1 unless all are equal.
    """
    from fedaigc.diffusion.exactness import check as measure
    from fedaigc.diffusion.exactness import default_cache
    from fedaigc.diffusion.loading import load_pipeline

    pipe = load_pipeline(model, device=device, dtype=dtype, variant=variant)
    found = measure(
        pipe,
        num_inference_steps=steps,
        guidance_scale=guidance,
        sizes=[(side, side) for side in size] if size else None,
        cache=None if again else default_cache(),
    )
    for split in found.splits:
        outcome = "equal" if split.difference == 0 else f"off by {split.difference:.2g}"
        typer.echo(f"{split.height} x {split.width}, K = {split.step}: {outcome}")
    typer.echo(found)
    if not found.exact:
        raise typer.Exit(1)
