"""LoRA folders, as diffusers and peft read them, from runs and adapters."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fedaigc.api.runs import Run
from fedaigc.diffusion.adapters.lora_folder import check_lora_folder
from fedaigc.diffusion.adapters.lora_folder import export_lora as write_lora
from fedaigc.diffusion.adapters.stages import Adapter, SharedState
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@overload
def export_lora(run: Run, folder: str | Path, /, *, exist_ok: bool = False) -> Path: ...


@overload
def export_lora(
    pipe: "DiffusionPipeline",
    adapter: Adapter | SharedState,
    folder: str | Path,
    /,
    *,
    base_hash: str | None = None,
    exist_ok: bool = False,
) -> Path: ...


def export_lora(*given: Any, base_hash: str | None = None, exist_ok: bool = False) -> Path:
    """Write the shared adapter of a run, or any adapter, as a LoRA folder that diffusers and peft read.

    `pipe.load_lora_weights(folder)` then applies the adapter at all noise levels, because LoRA files cannot express
    t*. `simulate(homes, start_from=folder)` continues from it.

    Example:
        >>> import fedaigc as fa
        >>> homes = fa.scenes("runs/lora/homes", clients=2, images=4, exist_ok=True)
        >>> few = {"local_steps": 1, "personal_steps": 0, "batch_size": 2}
        >>> run = fa.simulate(homes, rounds=1, adapter={"rank": 2}, training=few, progress=False)
        >>> folder = fa.export_lora(run, "runs/lora/first", exist_ok=True).parent
        >>> more = fa.simulate(
        ...     homes, start_from=folder, rounds=1, training=few, progress=False, output="runs/lora/more"
        ... )
        >>> more.shared.rank
        2

    Args:
        *given: A run and a folder; or a pipeline, an adapter or shared state of it, and a folder.
        base_hash: Fingerprint of the base model, which the file then names; of a run, and of a shared state, it is
            known.
        exist_ok: Write into a folder that has content; only an earlier weight file is replaced.

    Returns:
        The path of the weight file.

    Raises:
        UserError: If the shared state holds a residual, which is not a LoRA, if the adapter does not fit the
            pipeline, or if the folder has content.
    """
    if len(given) == 2 and isinstance(given[0], Run):
        run, folder = given[0], Path(given[1])
        check_lora_folder(folder, exist_ok=exist_ok)
        section, shared = run.config.model, run.shared
        pipe = load_pipeline(section.name, dtype=section.dtype, variant=section.variant)
        found = base_fingerprint(pipe)
        if found != shared.base_hash:
            raise UserError(
                f"the run trained base model {shared.base_hash}, {section.name} is now {found}: restore the model"
            )
        return write_lora(pipe, shared, folder, exist_ok=exist_ok)
    if len(given) != 3:
        raise TypeError("export_lora takes a run and a folder, or a pipeline, an adapter and a folder")
    pipe, adapter, folder = given[0], given[1], Path(given[2])
    return write_lora(pipe, adapter, folder, base_hash=base_hash, exist_ok=exist_ok)
