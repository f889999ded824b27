"""Finish many denoising runs in a process that has only files: `python resume_worker.py FOLDER`.

FOLDER/jobs.json lists the jobs, FOLDER/pipelines has the output of `save_pretrained`, and FOLDER has the packets.
Writes FOLDER/results.safetensors: the final latents of every job, and its image if the job asks for one.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from fedaigc.diffusion.handoff.packing import unpack
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.diffusion.sampling.segment import decode, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    pipelines = {}
    results = {}
    for job in json.loads((folder / "jobs.json").read_text()):
        if job["pipeline"] not in pipelines:
            pipelines[job["pipeline"]] = load_pipeline(str(folder / "pipelines" / job["pipeline"]))
        pipe = pipelines[job["pipeline"]]
        plan = DenoisingPlan.from_json(job["plan"])
        state = unpack((folder / job["packet"]).read_bytes(), plan, "strict")
        state = run_segment(pipe, state, job["conditioning"], plan, plan.num_steps)
        results[job["name"]] = state.latents.contiguous()
        if job["image"]:
            results[f"{job['name']}/image"] = torch.from_numpy(np.array(decode(pipe, state, plan)[0]))
    save_file(results, folder / "results.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
