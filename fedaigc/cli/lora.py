"""`fedaigc lora`: LoRA folders, as diffusers and peft read them, from runs and homes, and into homes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedaigc.cli.options import DtypeOption, HomeFolder, Model, Variant
from fedaigc.counting import counted
from fedaigc.errors import UserError
from fedaigc.federation.config.choices import Dtype

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from fedaigc.diffusion.adapters.stages import Adapter

lora_app = typer.Typer(help="Adapters as LoRA folders for diffusers and peft.", no_args_is_help=True)
_HOME = "device.json"


@lora_app.command("export")
def export_adapter(
    source: Annotated[
        Path,
        typer.Argument(help="A run's output folder: its shared adapter. A device's home: its personal one."),
    ],
    folder: Annotated[Path, typer.Argument(help="LoRA folder to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            help='"embedded", a diffusers folder or a hub name. Default: the model of the run; of a home: "embedded".'
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help='Number format of the model. Default: as the run; of a home: "float32".'),
    ] = None,
    variant: Variant = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the weights in a folder that has some.")
    ] = False,
) -> None:
    """Write an adapter as a LoRA folder, which `pipe.load_lora_weights(folder)` of diffusers reads."""
    from fedaigc.diffusion.adapters.lora_folder import check_lora_folder

    check_lora_folder(folder, exist_ok=force)
    if (source / _HOME).is_file():
        _export_personal(source, folder, model or "embedded", dtype or "float32", variant, force)
    elif source.is_dir():
        _export_shared(source, folder, model, dtype, variant, force)
    else:
        raise UserError(f"no folder {source}: give the output folder of a run, or a device's home")


@lora_app.command("import")
def import_adapter(
    home: HomeFolder,
    folder: Annotated[Path, typer.Argument(help="LoRA folder or safetensors file.")],
    model: Model = "embedded",
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Draw with it instead of the personal adapter that the device has."),
    ] = False,
) -> None:
    """Make a LoRA folder the personal adapter of a device, until a round of training makes another."""
    from fedaigc.cli.options import existing_home
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.versions import AdapterVersions

    existing_home(home)
    if not folder.exists():
        raise UserError(f"no LoRA folder {folder}: give a folder that diffusers or peft wrote")
    versions = AdapterVersions(Home.open(home))
    if versions.current_personal() is not None and not force:
        raise UserError(
            f"{home} has a personal adapter: keep it with `fedaigc lora export {home} FOLDER`, "
            "then give --force to draw with the imported one"
        )
    from fedaigc.diffusion.adapters.lora_folder import import_lora

    pipe, base_hash = _base_model(model, dtype, variant)
    _check_home_base(home, versions.base_models(), model, dtype, base_hash)
    adapter = import_lora(pipe, folder, base_hash=base_hash)
    versions.save_imported(adapter)
    typer.echo(f"{home} draws its personal stage with it, until a round trains another: {_told(adapter)}")


def _export_shared(
    output: Path, folder: Path, model: str | None, dtype: str | None, variant: str | None, force: bool
) -> None:
    from fedaigc.diffusion.adapters.lora_folder import export_lora
    from fedaigc.federation.config.run_config import ModelSection
    from fedaigc.federation.output.recorder import load_shared_state
    from fedaigc.federation.output.records import read_record
    from fedaigc.validation import validated

    shared = load_shared_state(output)
    if model is None or dtype is None:
        given = read_record(output).config.get("model", {})
        section = validated(ModelSection, given, f"the model in the record of {output}")
        if model is None:
            variant = variant or section.variant
        model, dtype = model or section.name, dtype or section.dtype
    pipe, base_hash = _base_model(model, dtype, variant)
    if base_hash != shared.base_hash:
        raise UserError(
            f"the shared state of {output} is for base model {shared.base_hash}, "
            f"{model!r} in {dtype} is {base_hash}: give --model and --dtype of the run"
        )
    path = export_lora(pipe, shared, folder, exist_ok=force)
    typer.echo(f"{path}: {_told(shared.adapter)}")
    if shared.boundary_log_snr is not None:
        typer.echo(
            "it was trained for the noisier steps, up to t*; diffusers applies it at every step", err=True
        )


def _export_personal(
    home: Path, folder: Path, model: str, dtype: str, variant: str | None, force: bool
) -> None:
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.versions import AdapterVersions
    from fedaigc.diffusion.adapters.lora_folder import export_lora

    versions = AdapterVersions(Home.open(home))
    adapter = versions.current_personal()
    if adapter is None:
        raise UserError(f"{home} has no personal adapter: none was trained or imported yet")
    pipe, base_hash = _base_model(model, dtype, variant)
    _check_home_base(home, versions.base_models(), model, dtype, base_hash)
    path = export_lora(pipe, adapter, folder, base_hash=base_hash, exist_ok=force)
    typer.echo(f"{path}: {_told(adapter)}")
    typer.echo(
        "it was trained for the cleaner steps, from t* on; diffusers applies it at every step", err=True
    )
    typer.echo(
        "warning: a personal adapter is trained on the private images of its device and can reveal them. No "
        f"command sends it: it leaves this device only if you hand {folder} on",
        err=True,
    )


def _base_model(model: str, dtype: str, variant: str | None) -> "tuple[DiffusionPipeline, str]":
    from fedaigc.diffusion.loading import base_fingerprint, load_pipeline

    pipe = load_pipeline(model, dtype=dtype, variant=variant)
    return pipe, base_fingerprint(pipe)


def _check_home_base(home: Path, known: set[str], model: str, dtype: str, base_hash: str) -> None:
    # a home that never received a shared state does not tell which model it is for
    if known and base_hash not in known:
        raise UserError(
            f"{home} was trained with base model {' or '.join(sorted(known))}, "
            f"{model!r} in {dtype} is {base_hash}: give --model and --dtype of the device"
        )


def _told(adapter: "Adapter") -> str:
    return f"rank {adapter.rank}, alpha {adapter.alpha:g}, {counted(len(adapter.lora), 'layer')}"
