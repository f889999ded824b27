"""Ray's ports in a simulation with workers accept code only with the token of the launch.

At b8a6c4d, they accepted it from everybody, including other machines: Ray listens on the address of the machine, not
on its loopback interface.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedaigc.federation.runtime.environment import flower_environment

HOLD = """
import sys
import ray
context = ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
JOIN = """
import os
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("ran as", ray.get(ray.remote(lambda: os.getuid()).remote()))
"""


def said_by(environment: dict[str, str], address: str) -> str:
    """Return the output of a process that joins the cluster and has it run a function."""
    command = [sys.executable, "-c", JOIN, address]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


@pytest.mark.slow
def test_a_stranger_does_not_join_the_cluster_of_a_simulation(tmp_path: Path) -> None:
    ours = flower_environment(tmp_path, 1)
    strangers = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        address = holder.stdout.readline().strip()
        assert "ran as" not in said_by(strangers, address)
        assert "ran as" in said_by(ours, address)
    finally:
        holder.communicate("", timeout=60)
