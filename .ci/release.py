"""Build sdist and wheel into dist/, check both, and try the wheel from a local index (`make release-check`)."""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import yaml
from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
WANTED = ("LICENSE", "NOTICE", "WordNet.txt", "unet/diffusion_pytorch_model.safetensors", "builtin/fedit.py")
# of the wheel; in the sdist the built-in strategies have another folder
IN_SDIST = (*WANTED[:-1], "strategies/fedit.py", "tests/test_layers.py", "CITATION.cff")
UNWANTED = {"runs", "dist", "__pycache__", ".venv", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


def main() -> None:
    """Run all checks, and print the command that tags the release."""
    with tempfile.TemporaryDirectory() as folder:
        sdist, wheel = build(Path(folder))
        version = metadata(wheel)
        check_names(sdist.name, _names(sdist), IN_SDIST)
        check_names(wheel.name, zipfile.ZipFile(wheel).namelist(), WANTED)
        install(wheel, version, Path(folder))
    print(f'all checks passed: git tag -a v{version} -m "fedaigc {version}"')


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist from this tree, and the wheel from the sdist, so that neither has what the other lacks."""
    shutil.rmtree(DIST, ignore_errors=True)
    hatchling = [sys.executable, "-m", "hatchling", "build", "--directory", str(DIST)]
    subprocess.run([*hatchling, "--target", "sdist"], cwd=ROOT, check=True)
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    subprocess.run([*hatchling, "--target", "wheel"], cwd=source, check=True)
    (wheel,) = DIST.glob("*.whl")
    for path in (sdist, wheel):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    return sdist, wheel


def metadata(wheel: Path) -> str:
    """Check the metadata as an index does, and return the version, which CITATION.cff must have too."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name)
    found = Metadata.from_email(text, validate=True)
    _expect(
        email.message_from_bytes(text)["Description-Content-Type"] == "text/markdown", "README is no Markdown"
    )
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    _expect(str(found.version) == cited, f"the version is {found.version}, in CITATION.cff {cited}")
    print(f"metadata {found.metadata_version} of {found.name} {found.version} is valid")
    return str(found.version)


def check_names(archive: str, names: Iterable[str], wanted: Iterable[str]) -> None:
    """Check that an archive has the licences and the assets, and neither runs nor caches."""
    found = list(names)
    missing = [end for end in wanted if not any(name.endswith(end) for name in found)]
    unwanted = [name for name in found if UNWANTED & set(Path(name).parts) or name.endswith(".pyc")]
    _expect(not missing, f"{archive} lacks {missing}")
    _expect(not unwanted, f"{archive} contains {unwanted[:5]}")
    print(f"{archive}: {len(found)} files, as they should be")


def install(wheel: Path, version: str, folder: Path) -> None:
    """Install the wheel from an index on this disk, and use it in an empty folder.

    The dependencies, several gigabytes, are those of this environment.
    """
    project = folder / "simple" / "fedaigc"
    project.mkdir(parents=True)
    shutil.copy(wheel, project)
    (project / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>\n')
    venv.create(folder / "fresh", with_pip=True)
    python, empty = folder / "fresh" / "bin" / "python", folder / "empty"
    empty.mkdir()
    index = ["--index-url", (folder / "simple").as_uri(), "--no-deps", "--isolated", "--quiet"]
    subprocess.run([python, "-m", "pip", "install", *index, f"fedaigc=={version}"], check=True)
    (packages,) = (folder / "fresh" / "lib").glob("python*/site-packages")
    # a plain path line: the .pth files in there, an editable install among them, are not read
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = str(python.parent / "fedaigc")
    for words in (
        [str(python), "-c", "import fedaigc; print(fedaigc.__file__)"],
        [command, "--version"],
        [command, "generate", "an apple on a table", "a lemon on a table"],
    ):
        told = subprocess.run(
            words, cwd=empty, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        print(f"{Path(words[0]).name} {' '.join(words[1:])}\n{told}", end="")
    _expect((empty / "runs" / "generate" / "01.png").is_file(), "no picture was drawn")


def _names(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        return archive.getnames()


def _expect(holds: bool, problem: str) -> None:
    if not holds:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
