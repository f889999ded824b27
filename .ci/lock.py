"""Write the versions and hashes of everything that `make install` downloads (`make constraints`).

Versions that are there already are kept where they fit pyproject.toml; hashes are those of every file of a
version, for all systems. Three files: torch has builds with other contents under one version, and what a
build for CUDA needs beside it is gigabytes that a build for CPUs does not want.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALL, TORCH, CUDA = (ROOT / f"constraints{part}.txt" for part in ("", "-torch", "-cuda"))
# of torch's builds for CPUs, which its own index has and PyPI has not: version, hash, system
CPU_BUILDS = {
    "torch==2.13.0": {
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b": "Linux x86_64, CPython 3.11",
    },
}
HEADER = "# Written by `make constraints`: versions, and the hashes of their files for all systems.\n"


def main() -> None:
    """Ask the index, by uv, and write the three files."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "all.txt"
        # uv keeps the versions that it finds in its output
        found.write_text("".join(path.read_text() for path in (ALL, TORCH, CUDA) if path.exists()))
        command = ["uv", "pip", "compile", "pyproject.toml", "--extra", "dev", "--universal"]
        command += ["--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"]
        subprocess.run(
            [sys.executable, "-m", *command, "--output-file", str(found)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        # a requirement, and the lines of its hashes
        entries = re.findall(r"^\S.*\n(?:^ .*\n)*", found.read_text(), flags=re.MULTILINE)
    files: dict[Path, list[str]] = {ALL: [], TORCH: [], CUDA: []}
    for entry in entries:
        pin = entry.split()[0]
        name = pin.partition("==")[0]
        if name == "torch":
            files[TORCH].append(entry.rstrip("\n") + _cpu_builds(pin, entry))
        else:
            files[CUDA if re.match(r"(nvidia|cuda)-|triton$", name) else ALL].append(entry)
    for path, lines in files.items():
        path.write_text(HEADER + "".join(lines), encoding="utf-8")


def _cpu_builds(pin: str, entry: str) -> str:
    # uv keeps the hashes of an earlier run
    missing = [digest for digest in CPU_BUILDS.get(pin, {}) if digest not in entry]
    return "".join(f" \\\n    --hash=sha256:{digest}" for digest in missing) + "\n"


if __name__ == "__main__":
    main()
