"""LoRA folders from runs and homes, and into homes, through the command line."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.device.home.home import Home
from fedaigc.device.home.versions import AdapterVersions
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.adapters.lora_folder import LORA_FILE, import_lora
from fedaigc.diffusion.adapters.stages import Adapter, SharedState, Stage, activate, remove
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import load_shared_state, save_shared_state
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.storage.tensor_file import read_tensors
from tests.small_run import run_maker


@pytest.fixture(scope="module")
def trained(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FederationConfig:
    """A run of two rounds on two devices."""
    make = run_maker(small_model, tmp_path_factory.mktemp("adapter"))
    config = make(num_clients=2, generation={"enabled": False})
    run_in_process(config)
    return config


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["lora", *map(str, arguments)])


def refused(*arguments: object) -> str:
    done = command(*arguments)
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def personal(home: Path) -> Adapter:
    found = AdapterVersions(Home.open(home)).current_personal()
    assert found is not None
    return found


def new_home(root: Path) -> Path:
    return Home.open(root).root


def same(left: Adapter, right: Adapter) -> bool:
    one, other = left.tensors(), right.tensors()
    return (
        (left.rank, left.alpha) == (right.rank, right.alpha)
        and one.keys() == other.keys()
        and all(torch.equal(one[name], value) for name, value in other.items())
    )


def picture(pipe: Any) -> Any:
    """A picture of the stock pipeline with the weights that it holds."""
    made = pipe(
        "an apple on a table",
        num_inference_steps=3,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )
    return made.images


def stranger(folder: Path, config: FederationConfig) -> Any:
    """A pipeline that knows nothing of this project, with the folder loaded."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(config.model.name, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(folder))
    return pipe


def test_diffusers_draws_the_same_picture_with_an_exported_shared_adapter(
    trained: FederationConfig, tmp_path: Path
) -> None:
    done = command("export", trained.output, tmp_path / "lora")
    assert done.exit_code == 0, done.exception
    assert "rank 2" in done.stdout
    assert "every step" in done.stderr
    pipe, base_hash = base_model(trained.model)
    remove(pipe, Stage.SHARED)
    base = picture(pipe)
    put_adapters(pipe, load_shared_state(trained.output), None)
    activate(pipe, Stage.SHARED)
    ours = picture(pipe)
    remove(pipe, Stage.SHARED)
    assert not torch.equal(ours, base)
    assert torch.equal(picture(stranger(tmp_path / "lora", trained)), ours)
    assert read_tensors(tmp_path / "lora" / LORA_FILE)[0]["fedaigc_base_model"] == base_hash


def test_a_personal_adapter_is_exported_by_its_owner_and_imported_into_another_home(
    trained: FederationConfig, tmp_path: Path
) -> None:
    home, model = trained.home(0), ("--model", trained.model.name)
    done = command("export", home, tmp_path / "lora", *model)
    assert done.exit_code == 0, done.exception
    assert "private images" in done.stderr
    pipe, _ = base_model(trained.model)
    put_adapters(pipe, None, personal(home))
    activate(pipe, Stage.PERSONAL)
    ours = picture(pipe)
    remove(pipe, Stage.PERSONAL)
    assert torch.equal(picture(stranger(tmp_path / "lora", trained)), ours)

    other = new_home(tmp_path / "other")
    done = command("import", other, tmp_path / "lora", *model)
    assert done.exit_code == 0, done.exception
    assert same(personal(other), personal(home))
    (file,) = (other / "adapters" / "rounds").rglob("*.safetensors")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # no round of training starts from it, and what it was before is not lost unasked
    assert AdapterVersions(Home.open(other)).before("run", 1) == (None, {})
    assert "--force" in refused("import", other, tmp_path / "lora", *model)


def test_a_round_of_training_replaces_an_imported_adapter(tmp_path: Path, trained: FederationConfig) -> None:
    versions = AdapterVersions(Home.open(tmp_path / "home"))
    first, second = personal(trained.home(0)), personal(trained.home(1))
    versions.save_imported(first)
    versions.save_imported(second)
    assert same(versions.current_personal() or first, second)
    versions.save_round("imported", 1, first)
    assert same(versions.current_personal() or second, first)
    # an import is under no name that a server could give
    assert versions.before("imported", 1) == (None, {})
    for _ in range(8):
        versions.save_imported(second)
    assert len(list((tmp_path / "home" / "adapters" / "rounds").iterdir())) == 2


def test_the_variant_decides_which_weights_an_adapter_is_for(
    trained: FederationConfig, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(trained.model.name, tmp_path / "both"))
    for file in sorted(both.glob("*/*.safetensors")):
        moved = {name: value + (value.is_floating_point()) for name, value in load_file(file).items()}
        save_file(moved, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
    model = ("--model", both)
    assert command("export", trained.home(0), tmp_path / "lora", *model).exit_code == 0
    for folder in ("export", trained.home(0)), ("export", trained.output):
        told = refused(*folder, tmp_path / "other", *model, "--variant", "fp16")
        assert base_model(trained.model)[1] in told
    fresh = new_home(tmp_path / "fresh")
    assert "for base model" in refused("import", fresh, tmp_path / "lora", *model, "--variant", "fp16")
    assert command("import", fresh, tmp_path / "lora", *model).exit_code == 0


def test_nothing_is_replaced_unasked(trained: FederationConfig, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    assert command("export", trained.output, folder).exit_code == 0
    before = (folder / LORA_FILE).read_bytes()
    (folder / "notes.txt").write_text("mine")
    assert "--force" in refused("export", trained.home(0), folder, "--model", trained.model.name)
    assert (folder / LORA_FILE).read_bytes() == before
    assert command("export", trained.home(0), folder, "--model", trained.model.name, "--force").exit_code == 0
    assert same(import_lora(base_model(trained.model)[0], folder), personal(trained.home(0)))
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", LORA_FILE]
    (tmp_path / "file").touch()
    assert "is a file" in refused("export", trained.output, tmp_path / "file")


def test_another_base_model_is_refused_by_both_names(trained: FederationConfig, tmp_path: Path) -> None:
    """The same weights in half precision are another base model."""
    _, base_hash = base_model(trained.model)
    model = ("--model", trained.model.name)
    for source in (trained.output, trained.home(0)):
        told = refused("export", source, tmp_path / "lora", *model, "--dtype", "float16")
        assert base_hash in told
        assert "float16" in told
    assert not (tmp_path / "lora").exists()
    assert command("export", trained.output, tmp_path / "lora").exit_code == 0
    assert base_hash in refused(
        "import", trained.home(0), tmp_path / "lora", *model, "--dtype", "float16", "--force"
    )
    # a home that has no shared state yet: the folder tells
    fresh = new_home(tmp_path / "fresh")
    assert f"for base model {base_hash}" in refused(
        "import", fresh, tmp_path / "lora", *model, "--dtype", "float16"
    )
    assert AdapterVersions(Home.open(fresh)).current_personal() is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "nowhere", "lora"], "nowhere"),
        (["export", "empty", "lora"], "shared-state.safetensors"),
        (["export", "home", "lora"], "no personal adapter"),
        (["import", "nowhere", "empty"], "nowhere"),
        (["import", "home", "nowhere"], "nowhere"),
        (["import", "home", "empty"], "no safetensors file"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    new_home(tmp_path / "home")
    assert told in refused(*arguments)
    assert not (tmp_path / "lora").exists()


def test_a_state_with_a_residual_is_no_lora(trained: FederationConfig, tmp_path: Path) -> None:
    shared = load_shared_state(trained.output)
    layer, (down, up) = next(iter(shared.lora.items()))
    state = SharedState(
        shared.base_hash, shared.lora, shared.rank, shared.alpha, {layer: (down.clone(), up.clone())}
    )
    save_shared_state(state, tmp_path)
    told = refused("export", tmp_path, tmp_path / "lora", "--model", trained.model.name, "--dtype", "float32")
    assert "residual" in told
    assert not (tmp_path / "lora").exists()


def test_a_folder_of_peft_is_imported_as_peft_applies_it(trained: FederationConfig, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    other: Any = load_pipeline(trained.model.name)
    model = get_peft_model(other.unet, LoraConfig(r=4, lora_alpha=2, target_modules=["to_q", "conv1"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(str(tmp_path / "peft"))
    home = new_home(tmp_path / "home")
    done = command("import", home, tmp_path / "peft", "--model", trained.model.name)
    assert done.exit_code == 0, done.exception
    found = personal(home)
    assert (found.rank, found.alpha) == (4, 2.0)
    pipe, _ = base_model(trained.model)
    base = picture(pipe)
    put_adapters(pipe, None, found)
    activate(pipe, Stage.PERSONAL)
    ours = picture(pipe)
    remove(pipe, Stage.PERSONAL)
    assert not torch.equal(ours, base)
    assert torch.equal(picture(other), ours)


@pytest.mark.slow
def test_the_real_command_writes_files_of_its_user_alone(trained: FederationConfig, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fedaigc.cli.main", "lora", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "COLUMNS": "200"},
        )

    done = run("export", trained.output, tmp_path / "lora")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "lora" / LORA_FILE).stat().st_mode) == 0o600
    done = run("export", trained.output, tmp_path / "lora")
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert "Traceback" not in done.stderr
