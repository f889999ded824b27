"""The command line. Heavy packages are imported inside the commands, so that --help is fast."""

import errno
import io
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fedaigc.cli.atlas import atlas_app, calibrate
from fedaigc.cli.check import check
from fedaigc.cli.device import device_app
from fedaigc.cli.disclose import disclose
from fedaigc.cli.follow_run import follow_run, log_line, tell_files, tell_prompts
from fedaigc.cli.lora import lora_app
from fedaigc.cli.options import (
    AtlasOfNodes,
    CalibrationOfNodes,
    Changes,
    DtypeOption,
    Guidance,
    Model,
    Nodes,
    PolicyOption,
    Resume,
    Risk,
    Seed,
    Size,
    StepsOfModel,
    Threads,
    Tolerance,
    TorchDevice,
    Variant,
    Verbose,
    check_nodes,
    number,
)
from fedaigc.cli.partition import partition, scenes
from fedaigc.cli.records import records_app
from fedaigc.cli.score import score
from fedaigc.cli.server import keys_app, server_app
from fedaigc.errors import UserError
from fedaigc.federation.config.choices import Backend
from fedaigc.semantics.policy import Policy
from fedaigc.storage.private_files import only_for_this_user

_STOCK_WARNING = warnings.formatwarning
app = typer.Typer(name="fedaigc", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(device_app, name="device")
app.command()(check)
app.command()(disclose)
app.add_typer(atlas_app, name="atlas")
app.command()(calibrate)
app.add_typer(lora_app, name="lora")
app.add_typer(records_app, name="records")
app.command()(partition)
app.command()(score)
app.add_typer(server_app, name="server")
app.add_typer(keys_app, name="keys")


def _version(asked: bool) -> bool:
    if asked:
        import fedaigc

        typer.echo(fedaigc.__version__)
        raise typer.Exit()
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Federated learning for collaborative diffusion: shared early denoising steps, private late ones."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for report.html and record.json.")] = Path("runs/demo"),
    seed: Seed = 0,
    rounds: Annotated[int, typer.Option(min=0, help="Federated rounds.")] = 3,
    images: Annotated[int, typer.Option(min=1, help="Private pictures a device.")] = 96,
    backend: Annotated[Backend, typer.Option(help="ray: in worker processes.")] = "ray",
    small: Annotated[
        bool, typer.Option("--small", help="Run one round of one step, as a test that takes a minute.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Train on eight devices, generate images for eight prompts in groups, and write a report page."""
    from fedaigc.demo.run import run_demo
    from fedaigc.demo.settings import DemoSettings
    from fedaigc.federation.progress_bars import progress_bars

    settings = DemoSettings(output=output, seed=seed, rounds=rounds, num_images=images, backend=backend)
    if small:
        settings = replace(settings, rounds=1, num_images=8, local_steps=1, personal_steps=1)
    with progress_bars() as progress:
        page = run_demo(settings, progress, log_line if verbose else None)
    if verbose:
        tell_files(output / "federation")
    typer.echo(f"report: {page}\nrecord: {page.with_name('record.json')}")


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(help="One prompt per device, each in quotes.")],
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/generate"),
    model: Model = "embedded",
    steps: StepsOfModel = None,
    shared_steps: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number K of steps that a group shares. Default: 3, or a third of N if N is below 9."
        ),
    ] = None,
    guidance: Guidance = 5.0,
    negative_prompt: Annotated[
        str, typer.Option(help="What all pictures keep away from. Devices and server read it.")
    ] = "",
    true_cfg_scale: Annotated[
        float | None,
        typer.Option(
            callback=number,
            min=0,
            help="Scale of the guidance by the negative prompt, in FLUX and Qwen-Image.",
        ),
    ] = None,
    policy: PolicyOption = Policy.KIND,
    nodes: Nodes = False,
    atlas: AtlasOfNodes = None,
    calibration: CalibrationOfNodes = None,
    tolerance: Tolerance = 0.5,
    risk: Risk = 0.2,
    size: Size = None,
    device: TorchDevice = "auto",
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    seed: Seed = 0,
    verbose: Verbose = False,
) -> None:
    """Generate images for prompts: those with similar meaning share their early denoising steps."""
    from fedaigc.federation.progress_bars import progress_bars
    from fedaigc.generation import GenerateSettings, chosen_steps, node_settings, run_generate

    check_nodes(nodes, atlas, calibration)
    settings = GenerateSettings(
        output,
        seed,
        {"name": model, "device": device, "dtype": dtype, "variant": variant}
        | ({} if size is None else {"height": size, "width": size}),
        chosen_steps(steps, shared_steps)
        | {
            "guidance_scale": guidance,
            "negative_prompt": negative_prompt,
            "true_cfg_scale": true_cfg_scale,
            "policy": policy,
        }
        | (
            node_settings(model, atlas, calibration, shared_steps, tolerance=tolerance, risk=risk)
            if nodes
            else {}
        ),
    )
    replaced = (output / "federation").is_dir()
    with progress_bars() as progress:
        record = run_generate(prompts, settings, progress, log_line if verbose else None)
    tell_prompts(record, settings.config(len(prompts)), output)
    typer.echo(f"pictures in {output}{', in place of the earlier ones' if replaced else ''}")
    if verbose:
        tell_files(output / "federation")


@app.command()
def simulate(
    config: Annotated[Path, typer.Argument(help="TOML file; `fedaigc config` prints one with the defaults.")],
    resume: Resume = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Put an earlier run in the output folder aside, into its folder `earlier`."
        ),
    ] = False,
    changes: Changes = None,
    verbose: Verbose = False,
) -> None:
    """Run the federation of a TOML file: training rounds, then generation for the waiting prompts."""
    from fedaigc.federation.runtime.launcher import simulate as run

    if force and resume:
        raise UserError("--force puts the earlier run aside, --resume continues it: give one of the two")
    follow_run(
        config,
        run,
        changes=changes or (),
        resume=resume,
        command=f"fedaigc simulate {config}",
        force=force,
        own_homes=True,
        verbose=verbose,
    )


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="TOML file; `fedaigc config --study` prints one.")],
    estimate: Annotated[bool, typer.Option("--estimate", help="Print the estimated time, and stop.")] = False,
    list_runs: Annotated[
        bool, typer.Option("--list", help="List the runs with their ids and status, and stop.")
    ] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Write tables, plots and report from the records alone.")
    ] = False,
    recompute: Annotated[
        int,
        typer.Option(
            min=0, help="Compute this many recorded runs again, and compare them with their records."
        ),
    ] = 0,
    recompute_seed: Annotated[int, typer.Option(help="Which runs --recompute draws.")] = 0,
    changes: Changes = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Also print the log of each run, and its record with size and hash."),
    ] = False,
) -> None:
    """Compare strategies: run strategies x seeds x partitions, skip recorded runs, and write tables."""
    from fedaigc.study.command import compare as run
    from fedaigc.study.design.config import read_study

    raise typer.Exit(
        run(
            read_study(config, changes or ()),
            estimate_only=estimate,
            list_only=list_runs,
            tables_only=tables,
            recompute_count=recompute,
            recompute_seed=recompute_seed,
            verbose=verbose,
        )
    )


@app.command()
def strategies() -> None:
    """List all aggregation strategies with their traits and options."""
    from dataclasses import fields

    from rich.console import Console
    from rich.table import Table

    from fedaigc.strategy.edge_sums import edge_half
    from fedaigc.strategy.registry import describe
    from fedaigc.strategy.sources import strategy_names

    table = Table("strategy", "what it is")
    for header in ("traits", "options"):
        table.add_column(header, overflow="fold")  # a truncated name could not be copied
    for name in strategy_names():
        found = describe(name)
        traits = [f.name for f in fields(found.traits) if getattr(found.traits, f.name) is True]
        traits += [f"equals {found.equals}"] if found.equals else []
        traits += ["averaged on edges"] if edge_half(name).weight else []
        options = [f"{option} = {value!r}" for option, value in found.options.items()]
        table.add_row(name, found.about, ", ".join(traits), ", ".join(options))
    Console().print(table)


@app.command()
def config(
    study: Annotated[bool, typer.Option("--study", help="Print one for `fedaigc compare` instead.")] = False,
    flower: Annotated[
        Path | None, typer.Option(help="Print this TOML file as a run config for `flwr run .` instead.")
    ] = None,
    changes: Changes = None,
) -> None:
    """Print a configuration with all defaults, to edit and pass to `fedaigc simulate`."""
    from fedaigc.federation.config.config_file import config_text
    from fedaigc.federation.config.run_config import flower_run_config, read_config
    from fedaigc.federation.server.initial_state import prepared
    from fedaigc.study.design.config_text import study_text

    if study if flower is not None else changes:
        raise UserError("--set changes the file of --flower, and --study prints one without it")
    given = None if flower is None else prepared(read_config(flower, changes or ()).absolute())
    default = study_text if study else config_text
    typer.echo(default() if given is None else flower_run_config(given), nl=False)


@app.command()
def profile(
    output: Annotated[Path | None, typer.Option(help="Also write the profile to this file, as JSON.")] = None,
    model: Model = "embedded",
    device: TorchDevice = "cpu",
    variant: Variant = None,
    size: Size = None,
    guidance: Guidance = 5.0,
    watts: Annotated[
        float, typer.Option(callback=number, help="Power in watts to assume if it cannot be measured.")
    ] = 30.0,
    repeats: Annotated[int, typer.Option(min=1, help="Number of measurements whose median is reported.")] = 5,
    threads: Threads = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace the output file.")] = False,
) -> None:
    """Measure seconds and joules of a step, a text encoding and a decoding on this machine."""
    import torch

    from fedaigc.api.denoising import default_side
    from fedaigc.device.profile import measure_profile
    from fedaigc.diffusion.loading import load_pipeline

    if output is not None and output.exists() and not force:
        raise UserError(f"{output} exists: give another file, or --force to replace it")
    torch.set_num_threads(threads)
    pipe = load_pipeline(model, device=device, variant=variant)
    side = default_side(pipe) if size is None else size
    found = measure_profile(
        pipe,
        model=model,
        height=side,
        width=side,
        guidance_scale=guidance,
        watts=watts,
        repeats=repeats,
    )
    typer.echo(found.to_json())
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(found.to_json() + "\n", encoding="utf-8")


app.command()(scenes)


def main() -> None:
    """Run the command line.

    A user's mistake prints its message and exits with status 2, without a traceback. Files that a command
    writes are readable by its user only, who hands out what is meant for others.
    """
    only_for_this_user()
    warnings.formatwarning = _told_warning
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a terminal of another encoding gets \xe9 for a letter that it lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _check_working_folder()
        app()
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(f"{where}{error.strerror}{': free space on the disk, then repeat the command' if full else ''}")
    except MemoryError:
        _fail(
            "this machine has not enough memory: use smaller pictures, a smaller batch_size, or fewer workers"
        )
    except RuntimeError as error:
        # torch, which is not imported here, names it so
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _fail(
            f"the GPU has not enough memory: use smaller pictures, a smaller batch_size, or --device cpu ({error})"
        )


def _told_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
    """Return a warning without the line of code that gave it, which is none of the user's."""
    return (
        f"warning: {message}\n"
        if category is UserWarning
        else _STOCK_WARNING(message, category, *where, **more)
    )


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    sys.exit(2)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working folder no longer exists: change to another one") from None


if __name__ == "__main__":
    main()
