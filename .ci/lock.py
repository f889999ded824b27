"""Write the versions and hashes of everything that `make demo` and `make install` download (`make constraints`).

Versions that are there already are kept where they fit pyproject.toml; hashes are those of every file of a
version, for all systems. Five files: the demo does not wait for what only developers need, torch has builds with
other contents under one version, and what a build for CUDA needs beside it is gigabytes that a build for CPUs does
not want.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = RUN, DEV, TORCH, CUDA = [ROOT / f"constraints{part}.txt" for part in ("", "-dev", "-torch", "-cuda")]
# what every command of the project needs, and an editable install
RUN_EXTRAS = ("build", "discovery", "peer", "plots", "radio", "server", "tensorboard")
# of torch's builds for CPUs, which its own index has and PyPI has not: version, hash, system
CPU_BUILDS = {
    "torch==2.13.0": {
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b": "Linux x86_64, CPython 3.11",
    },
}
CPU = ROOT / "constraints-torch-cpu.txt"
HEADER = "# Written by `make constraints`: versions, and the hashes of their files for all systems.\n"


def main() -> None:
    """Ask the index, by uv, and write the five files."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "all.txt"
        # uv keeps the versions that it finds in its output
        found.write_text("".join(path.read_text() for path in FILES if path.exists()))
        entries = _compile(found, ["dev"], "--generate-hashes")
        to_run = {_name(entry) for entry in _compile(found, RUN_EXTRAS)}
    files: dict[Path, list[str]] = {path: [] for path in FILES}
    for entry in entries:
        name = _name(entry)
        if name == "torch":
            pin = entry.split()[0]
            files[TORCH].append(entry.rstrip("\n") + _cpu_builds(pin, entry))
            # pip takes it from a folder of wheels only where it is asked for by this name
            CPU.write_text(f"{HEADER}{pin}+cpu{_cpu_builds(pin, '')}", encoding="utf-8")
        elif re.match(r"(nvidia|cuda)-|triton$", name):
            files[CUDA].append(entry)
        else:
            files[RUN if name in to_run else DEV].append(entry)
    for path, lines in files.items():
        path.write_text(HEADER + "".join(lines), encoding="utf-8")


def _compile(found: Path, extras: Sequence[str], *options: str) -> list[str]:
    """Return each requirement of the project with these extras, with the lines of its hashes."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal"]
    command += ["--python-version", "3.11", "--no-annotate", "--no-header", "--output-file", str(found)]
    command += [word for extra in extras for word in ("--extra", extra)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return re.findall(r"^\S.*\n(?:^ .*\n)*", found.read_text(), flags=re.MULTILINE)


def _name(entry: str) -> str:
    return entry.split()[0].partition("==")[0]


def _cpu_builds(pin: str, entry: str) -> str:
    # uv keeps the hashes of an earlier run
    missing = [digest for digest in CPU_BUILDS.get(pin, {}) if digest not in entry]
    return "".join(f" \\\n    --hash=sha256:{digest}" for digest in missing) + "\n"


if __name__ == "__main__":
    main()
