"""`fedaigc demo`: eight devices train and generate together, and a page shows the results."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedaigc.storage.output_folder import fresh_folder

if TYPE_CHECKING:
    from PIL import Image

    from fedaigc.demo.page import LinkView
    from fedaigc.device.device import Device
    from fedaigc.diffusion.schedule.plan import DenoisingPlan
    from fedaigc.federation.config.run_config import FederationConfig
    from fedaigc.federation.output.records import GroupRecord, RunRecord, TaskRecord
    from fedaigc.federation.progress import OnProgress
    from fedaigc.metrics.judge import Verdict

# (style, prompt): the two held-out styles twice; three groups, and two tasks that run alone
CAST = (
    ("blob", "an apple on a table"),
    ("openmoji", "a lemon on a table"),
    ("noto", "a shiny pear on a table"),
    ("fluent", "a car on a road"),
    ("flat", "a bus on a road"),
    ("emojione", "a dog near a river"),
    ("twemoji", "a horse near a river"),
    ("blob", "a cactus on a beach"),
)
STYLE_PROMPTS = ("an apple on a table", "a dog near a river")
STYLE_ROWS = 4
MARKER = ".fedaigc-demo"


@dataclass(frozen=True)
class DemoSettings:
    """The size of a demo. The defaults take about four minutes on two cores."""

    output: Path
    seed: int = 0
    rounds: int = 3
    num_images: int = 96
    local_steps: int = 6
    personal_steps: int = 20
    num_inference_steps: int = 11
    num_shared_steps: int = 3
    backend: Literal["in-process", "ray"] = "ray"
    workers: int = 2
    cast: tuple[tuple[str, str], ...] = CAST


@dataclass
class Stopwatch:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def run_demo(settings: DemoSettings, progress: "OnProgress | None" = None) -> Path:
    """Run the demo and return the path of report.html; record.json next to it holds every figure.

    An earlier demo in the same folder is replaced once this one is complete. Raises UserError if the folder
    holds anything else.
    """
    # imported here: these import torch, diffusers and Flower
    from fedaigc.device.provision import SceneClient, provision_scenes
    from fedaigc.federation.runtime.launcher import simulate

    watch = Stopwatch()
    start = time.perf_counter()
    output = settings.output
    config = _config(settings)
    clients = [SceneClient(style, settings.num_images, (prompt,)) for style, prompt in settings.cast]
    with fresh_folder(output, MARKER):
        with watch.phase("pictures"):
            provision_scenes(config.homes, clients, settings.seed)
        with watch.phase("federation"):
            run = simulate(config, progress)
        with watch.phase("report"):
            page = _Page(settings, config, run, progress)
            record = page.draw()
        record["seconds"] = watch.seconds | {"total": round(time.perf_counter() - start, 2)}
        return page.write(record)


def _config(settings: DemoSettings) -> "FederationConfig":
    from fedaigc.demo.link import link_settings
    from fedaigc.federation.config.run_config import parse_config

    return parse_config(
        {
            "homes": settings.output / "homes",
            "output": settings.output / "federation",
            "seed": settings.seed,
            "num_clients": len(settings.cast),
            "backend": settings.backend,
            "workers": settings.workers,
            "rounds": {"count": settings.rounds},
            "training": {
                "local_steps": settings.local_steps,
                "personal_steps": settings.personal_steps,
            },
            "generation": {
                "num_inference_steps": settings.num_inference_steps,
                "num_shared_steps": settings.num_shared_steps,
                **link_settings(),
            },
        }
    )


_OF_THE_GENERATION = ("policy", "plan", "num_steps", "boundary_step")


class _Page:
    """Collects what the page shows. It acts as the devices' owner and opens their homes, as no server can."""

    def __init__(
        self,
        settings: DemoSettings,
        config: "FederationConfig",
        run: "RunRecord",
        progress: "OnProgress | None",
    ) -> None:
        from fedaigc.diffusion.schedule.plan import build_plan
        from fedaigc.federation.output.recorder import load_shared_state
        from fedaigc.federation.preloaded import base_model, scene_scorer, taxonomy
        from fedaigc.metrics.judge import Judge

        if run.generation is None:
            raise RuntimeError("the run of the demo drew nothing")
        self._settings, self._config, self._run, self._progress = settings, config, run, progress
        self._generation = run.generation
        self._pipe, base_hash = base_model(config.model)
        self._shared = load_shared_state(config.output)
        self._taxonomy = taxonomy()
        self._judge: Judge = Judge.load()
        generation = config.generation
        self._plan: DenoisingPlan = build_plan(
            self._pipe,
            num_inference_steps=generation.num_inference_steps,
            guidance_scale=generation.guidance_scale,
            height=config.model.height,
            width=config.model.width,
            base_hash=base_hash,
            shared_hash=self._shared.hash(),
        )
        if self._plan.fingerprint() != self._generation.plan:
            raise RuntimeError(
                f"the page's plan {self._plan.fingerprint()} is not the run's {self._generation.plan}"
            )
        from fedaigc.device.device import Device

        self._devices: list[Device] = [
            Device(
                config.home(client),
                self._pipe,
                base_hash=base_hash,
                taxonomy=self._taxonomy,
                scorer=scene_scorer(),
            )
            for client in range(config.num_clients)
        ]
        self._drawn: dict[str, list[Image.Image]] = {"collaborative": [], "solo": []}
        self._prompts: list[str] = []
        self._verdicts: dict[str, list[tuple[Verdict, int, str]]] = {"collaborative": [], "solo": []}

    def draw(self) -> dict[str, Any]:
        """Generate the solo images, strips and styles, and return the record without its times."""
        import torch

        torch.set_num_threads(1)
        tasks = len(self._generation.tasks)
        self._done, self._total = 0, tasks + STYLE_ROWS
        self._groups = [self._group(group) for group in self._generation.groups]
        self._styles = [self._style(client) for client in range(STYLE_ROWS)]
        self._link = self._link_view()
        return self._record()

    def write(self, record: dict[str, Any]) -> Path:
        """Write record.json, report.html, and overview.png with all images."""
        from fedaigc.demo.page import render_page
        from fedaigc.demo.pictures import contact_sheet

        output = self._settings.output
        (output / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        contact_sheet(list(self._drawn.items()), self._prompts).save(output / "overview.png", optimize=True)
        render_page(record, self._groups, self._styles, self._link, output / "report.html")
        return output / "report.html"

    def _step(self) -> None:
        self._done += 1
        if self._progress is not None:
            from fedaigc.federation.progress import Progress, Stage

            self._progress(Progress(Stage("pictures for the report"), self._done, self._total))

    def _group(self, group: "GroupRecord") -> Any:
        from fedaigc.demo.page import GroupView

        executor = group.executor
        return GroupView(
            prompt=group.prompt,
            executor="the edge" if executor == "edge" else f"device {executor}",
            num_shared_steps=group.num_shared_steps,
            evaluations=group.evaluations,
            solo_evaluations=group.solo_evaluations,
            members=tuple(self._member(group, task) for task in group.tasks),
        )

    def _member(self, group: "GroupRecord", task: "TaskRecord") -> Any:
        from fedaigc.demo.page import MemberView
        from fedaigc.demo.pictures import data_uri

        client = task.client
        device, style = self._devices[client], self._settings.cast[client][0]
        prompt = device.prompts.get(task.task_id).prompt
        drawn = device.gallery.image(task.task_id)
        again = device.add_prompt(prompt)
        device.alone(again, group.noise_seed, self._plan)
        solo = device.gallery.image(again)
        verdicts = self._judge.score([drawn, solo])
        for name, verdict, image in zip(("collaborative", "solo"), verdicts, (drawn, solo), strict=True):
            self._verdicts[name].append((verdict, client, prompt))
            self._drawn[name].append(image)
        self._prompts.append(prompt)
        frames = self._frames(group, task, prompt)
        self._step()
        return MemberView(
            client=client,
            style=style,
            prompt=prompt,
            disclosed=self._words(task.disclosed),
            shared_image=data_uri(drawn),
            solo_image=data_uri(solo),
            shared_verdict=self._verdict(verdicts[0], prompt),
            solo_verdict=self._verdict(verdicts[1], prompt),
            frames=tuple(data_uri(frame) for frame in frames),
        )

    def _frames(self, group: "GroupRecord", task: "TaskRecord", prompt: str) -> "list[Image.Image]":
        """Repeat the same run exactly, link included, and decode after each step."""
        from fedaigc.demo.link import over_link
        from fedaigc.device.training.local_round import put_adapters
        from fedaigc.diffusion.adapters.stages import run_stages
        from fedaigc.diffusion.sampling.segment import decode, initial_state

        client = task.client
        put_adapters(self._pipe, self._shared, self._devices[client].versions.current_personal())
        boundary = self._generation.boundary_step
        state = initial_state(self._pipe, self._plan, group.noise_seed)
        frames = []
        for step in range(self._plan.num_steps):
            text = group.prompt if step < group.num_shared_steps else prompt
            state = run_stages(self._pipe, state, {"prompt": text}, self._plan, step + 1, boundary)
            frames += decode(self._pipe, state, self._plan)
            if step + 1 == group.num_shared_steps:
                state = over_link(state, task.task_id, client, self._config, self._plan)
        return frames

    def _link_view(self) -> "LinkView | None":
        from fedaigc.demo.link import link_view

        groups = self._generation.groups
        boundary = self._generation.boundary_step
        return link_view(self._pipe, self._shared, self._devices, groups, self._config, self._plan, boundary)

    def _style(self, client: int) -> Any:
        from fedaigc.data.sprites import HELD_OUT_STYLES
        from fedaigc.demo.page import StyleView
        from fedaigc.demo.pictures import data_uri

        device, style = self._devices[client], self._settings.cast[client][0]
        examples = [item.image for item in device.images.all()[:3]]
        rows = [self._draw_style(device, personal) for personal in (False, True)]
        self._step()
        before, after = (tuple(data_uri(image) for image in row) for row in rows)
        return StyleView(style, style in HELD_OUT_STYLES, tuple(map(data_uri, examples)), before, after)

    def _draw_style(self, device: "Device", personal: bool) -> "list[Image.Image]":
        from fedaigc.device.training.local_round import put_adapters
        from fedaigc.diffusion.adapters.stages import finish_stages
        from fedaigc.diffusion.sampling.segment import initial_state

        put_adapters(self._pipe, self._shared, device.versions.current_personal() if personal else None)
        boundary = self._generation.boundary_step
        images = []
        for number, prompt in enumerate(STYLE_PROMPTS):
            state = initial_state(self._pipe, self._plan, self._settings.seed + number)
            images += finish_stages(self._pipe, state, {"prompt": prompt}, self._plan, boundary)
        return images

    def _words(self, disclosed: dict[str, Any] | None) -> str:
        from fedaigc.semantics.concepts.vocabulary import Role, public_nouns

        if disclosed is None:
            return "nothing: the task ran alone"
        thing, place = (public_nouns(role)[disclosed[role.value]].word for role in (Role.OBJECT, Role.PLACE))
        return f"{thing} ({disclosed['object']}) {disclosed['relation']} {place} ({disclosed['place']})"

    def _wanted(self, prompt: str) -> tuple[str | None, str | None]:
        from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS
        from fedaigc.semantics.concepts.parser import parse

        parsed = parse(prompt, self._taxonomy)
        words = [{noun.concept: noun.word for noun in nouns} for nouns in (OBJECT_NOUNS, PLACE_NOUNS)]
        return words[0].get(parsed.object or ""), words[1].get(parsed.place or "")

    def _verdict(self, verdict: "Verdict", prompt: str) -> str:
        thing, place = self._wanted(prompt)
        marks = ((verdict.object, verdict.object == thing), (verdict.place, verdict.place == place))
        return ", ".join(f"{word} {'✓' if right else '✗'}" for word, right in marks)

    def _scores(self, name: str) -> dict[str, Any]:
        from fedaigc.metrics.intervals import proportion

        seen = [
            (verdict, self._settings.cast[client][0], *self._wanted(prompt))
            for verdict, client, prompt in self._verdicts[name]
        ]
        return {
            "name": name,
            "n": len(seen),
            "object": proportion([v.object == thing for v, _, thing, _ in seen]).as_dict(),
            "place": proportion([v.place == place for v, _, _, place in seen]).as_dict(),
            "style": proportion([v.style == style for v, style, _, _ in seen]).as_dict(),
        }

    def _record(self) -> dict[str, Any]:
        from fedaigc.federation.output.recorder import versions

        groups = self._generation.groups
        generation = self._generation.model_dump(mode="json", include={*_OF_THE_GENERATION, "groups"})
        return {
            "what": "fedaigc demo",
            "seed": self._settings.seed,
            "settings": {**asdict(self._settings), "output": str(self._settings.output)},
            "versions": versions(),
            "machine": {
                "cores": os.cpu_count(),
                "processor": platform.machine(),
                "system": platform.system(),
            },
            "federation": self._federation(),
            "generation": generation
            | {
                "tasks": len(self._generation.tasks),
                "evaluations": sum(group.evaluations for group in groups),
                "solo_evaluations": sum(group.solo_evaluations for group in groups),
                "packet_bytes": sum(group.packet_bytes for group in groups),
            },
            "scores": {"rows": [self._scores("collaborative"), self._scores("solo")]},
        }

    def _federation(self) -> dict[str, Any]:
        rounds: list[dict[str, Any]] = []
        for done in self._run.rounds:
            rounds.append(
                {
                    "round": done.round,
                    "clients": len(done.metrics),
                    "shared_loss": done.mean_metrics()["shared_loss"],
                    # as counted by the ledger
                    "bytes_up": sum(done.sent_bytes["up"].values()),
                    "bytes_down": sum(done.sent_bytes["down"].values()),
                }
            )
        return {
            "boundary_timestep": self._run.config["adapter"]["boundary_timestep"],
            "clients": [
                {"client": i, "style": style, "images": self._settings.num_images}
                for i, (style, _) in enumerate(self._settings.cast)
            ],
            "bytes_up_per_client": rounds[0]["bytes_up"] / rounds[0]["clients"] if rounds else 0,
            "rounds": rounds,
            "shared_hash": self._run.shared_hash,
        }
