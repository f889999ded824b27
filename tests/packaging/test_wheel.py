"""The wheel works in a fresh environment, from another folder, and without the network."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(target),
    ]
    subprocess.run([*build, str(ROOT)], check=True, timeout=300)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_carries_assets_and_notices_and_no_experiments(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "fedaigc/assets/model/unet/diffusion_pytorch_model.safetensors",
        "fedaigc/assets/model_lcm/unet/diffusion_pytorch_model.safetensors",
        "fedaigc/assets/judge.safetensors",
        "fedaigc/assets/nouns.json.gz",
        "fedaigc/assets/embedded.atlas",
        "fedaigc/assets/embedded_calibration.json",
        "fedaigc/assets/licenses/WordNet.txt",
        "fedaigc/assets/sprites/noto.png",
        "fedaigc/data/scenes.py",
        "fedaigc/demo/page.html.j2",
        "fedaigc/deployment/page/static/page.html",
        "fedaigc/deployment/page/static/page.css",
        "fedaigc/deployment/page/static/page.js",
        "fedaigc/deployment/page/static/icon.svg",
        "fedaigc/strategy/builtin/__init__.py",
        "fedaigc/strategy/builtin/fedit.py",
    ):
        assert wanted in names
    for notice in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f"dist-info/licenses/{notice}") for name in names)
    assert not any(
        name.startswith(("experiments", "tests", "benchmarks", "strategies", "tools")) for name in names
    )


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which uses the dependencies (several gigabytes) of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True, timeout=300
    )
    (packages,) = (folder / "lib").glob("python*/site-packages")
    # a plain path line: the .pth files in there, our editable install among them, are not read
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


@pytest.mark.slow
def test_the_small_demo_runs_from_the_wheel_elsewhere_and_offline(python: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        # whatever tries to reach the network finds nobody there
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    where = subprocess.run(
        [python, "-c", "import fedaigc.cli.main; print(fedaigc.cli.main.__file__)"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert str(python.parents[1]) in where
    run = subprocess.run(
        [python.parent / "fedaigc", "demo", "--small", "--backend", "in-process", "--output", "out"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert len(record["generation"]["groups"]) >= 3
    assert record["generation"]["evaluations"] < record["generation"]["solo_evaluations"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") > 100
    assert "http://" not in page
    assert "https://" not in page
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


# after the README's example: a rule of one's own, defined where it is used
RULE = """
class Mine(fa.AveragingRule):
    traits = fa.Traits(averaging=False)

    def finish(self):
        before, after = self._shared.tensors(), super().finish().tensors()
        return self._shared.with_tensors({name: (before[name] + x) / 2 for name, x in after.items()})


if __name__ == "__main__":
    few = {"local_steps": 1, "personal_steps": 1}
    mine = fa.simulate(homes, strategy=Mine, rounds=1, training=few, output="runs/mine")
    assert mine.record.shared_hash != run.record.shared_hash
    print("FILE", fa.__file__, image.size)
"""


# the quick test of the example: tests/api/test_readme.py
@pytest.mark.slow
def test_the_readme_s_example_runs_from_the_wheel_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^(?:import|from) .*", example, flags=re.MULTILINE) == ["import fedaigc as fa"]
    (tmp_path / "example.py").write_text(example + RULE, encoding="utf-8")
    run = subprocess.run(
        [python, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert f"FILE {python.parents[1]}" in run.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"example.py", "runs"}
