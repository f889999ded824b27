"""A home of format 1, from earlier versions, keeps its adapters when this version opens it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedaigc.device.home.home import FORMAT, Home
from fedaigc.device.home.versions import AdapterVersions
from fedaigc.diffusion.adapters.state import Adapter, SharedState
from fedaigc.errors import DamagedFile

FACTORS = {"unet.a.lora_A": torch.ones(2, 3), "unet.a.lora_B": torch.full((4, 2), 0.5)}
SHARED = SharedState("f" * 64, {"unet.a": (torch.zeros(2, 3), torch.zeros(4, 2))}, 2, 4.0)


def old_folder(folder: Path, header: Mapping[str, object], tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "tensors.safetensors")
    (folder / "header.json").write_text(json.dumps(header))


@pytest.fixture
def old_home(tmp_path: Path) -> Path:
    root = tmp_path / "home"
    Home.open(root, seed=3)
    (root / "device.json").write_text(json.dumps({"format": 1, "seed": 3}))
    personal = {f"personal/{name}": tensor for name, tensor in FACTORS.items()}
    for number in (1, 2):
        tensors = {name: tensor * number for name, tensor in personal.items()}
        header = {"follows": number - 1, "rank": 2, "alpha": 4.0}
        memory = {"memory/control": torch.tensor([float(number)])}
        old_folder(root / "adapters" / "rounds" / "run" / f"{number:06d}", header, tensors | memory)
    (root / "adapters" / "current.json").write_text(json.dumps({"run": "run", "round": 2}))
    old_folder(root / "adapters" / "shared" / SHARED.hash(), SHARED.header(), SHARED.tensors())
    return root


def check(root: Path) -> None:
    home = Home.open(root, seed=3)
    versions = AdapterVersions(home)
    current = versions.current_personal()
    assert isinstance(current, Adapter)
    assert torch.equal(current.lora["unet.a"][1], torch.ones(4, 2))
    assert versions.last_round("run") == 2
    assert versions.before("run", 2)[1] == {"control": torch.tensor([1.0])}
    assert versions.shared(SHARED.hash()).hash() == SHARED.hash()
    assert json.loads((root / "device.json").read_text()) == {"format": FORMAT, "seed": 3, "seeded": True}
    assert not list(root.glob("adapters/**/header.json"))


def test_an_old_home_is_read_and_then_has_the_new_format(old_home: Path) -> None:
    check(old_home)
    check(old_home)


def test_an_upgrade_that_was_cut_off_goes_on(old_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Path] = []

    def dies(path: Path) -> None:
        done.append(path)
        if len(done) == 2:
            raise KeyboardInterrupt
        remove(path)

    remove = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            Home.open(old_home, seed=3)
    check(old_home)


@pytest.mark.parametrize("left", ["header.json", "tensors.safetensors"])
def test_a_folder_that_was_half_removed_is_removed(
    old_home: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """A process dies after it wrote the new file and removed one of the two old ones."""

    def dies(path: Path) -> None:
        next(file for file in path.iterdir() if file.name != left).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            Home.open(old_home, seed=3)
    check(old_home)


def test_a_damaged_round_of_an_old_home_is_named(old_home: Path) -> None:
    header = old_home / "adapters" / "rounds" / "run" / "000002" / "header.json"
    header.write_text("{")
    with pytest.raises(DamagedFile, match=r"000002.header\.json is damaged"):
        Home.open(old_home, seed=3)
