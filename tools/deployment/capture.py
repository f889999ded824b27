"""Deployments with captured traffic, of three devices with canaries.

One shares by concepts, first without and then with a leaking device. The other one shares by the denoiser's distance,
with a ladder of hand-offs, the mean of the members' text embeddings, and tests which prompts are equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from fedaigc.collaboration.secure_sum import fixed_point
from fedaigc.deployment.server.runs import run_on_devices
from fedaigc.device.device import Device
from fedaigc.diffusion.conditioning import placed, prompt_conditioning
from fedaigc.diffusion.encoding import encode_images, encode_text
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.preloaded import base_model
from fedaigc.semantics.denoiser.atlas_build import build_tree
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, distance, phi, phi_of
from tools.leaks.detector import words_of

from .canaries import Canaries, Found, Search
from .canary_device import LEAF, LEAF_CONCEPT, canary_taxonomy
from .decoding import Told, Traffic, decoded
from .recorder import Exchange, Recorder, recording
from .running import Devices, answers, deployment, wait_for

MODIFIER = "zorblatique"
# two groups of three, "a fruit on a table" and "a mammal near a river"; the device of a prompt is its index modulo
# three
PROMPTS = (
    f"a {MODIFIER} apple on a table",
    f"a {LEAF} on a table",
    f"a {MODIFIER} pear on a table",
    f"a {MODIFIER} dog near a river",
    "a cat near a river",
    f"a {MODIFIER} horse near a river",
)
# the device discloses nothing of this prompt, and fails to draw it
ALONE = f"a {MODIFIER} tango"
CAPTION = f"a {MODIFIER} carpet on a table"
FRUIT, MAMMAL, TABLE, RIVER = "n07721676", "n01864419", "n04386330", "n09434308"
# by the denoiser's distance all would be one group, but three are equal, on two devices
EQUAL_PROMPT = f"1girl, solo, {MODIFIER}, masterpiece"
WORDS_OF_ANY_KIND = (
    (EQUAL_PROMPT, EQUAL_PROMPT, f"{LEAF}, 4k"),
    (EQUAL_PROMPT, f"ein {MODIFIER} Hund am Strand"),
    (f"桜の下の {MODIFIER} 犬", f"{LEAF} {MODIFIER}"),
)
# the failing device gives no key for its last prompt
SUMMED = (WORDS_OF_ANY_KIND[0][2], WORDS_OF_ANY_KIND[1][1], WORDS_OF_ANY_KIND[2][0])
PUBLIC_CAPTIONS = tuple(
    f"a {thing} on a {place}" for thing in ("cat", "cup", "dog") for place in ("bed", "road")
)
# folder of the owners' files
OWNERS = "quixatlas"
NUM_DEVICES = 3
SIZE = 32
STEPS, FIRST_RUNG, LAST_RUNG = 4, 1, 2
# the machine may be busy
_START_TIMEOUT_S = 1500.0


def pattern(seed: int) -> Image.Image:
    """Return colour patches that survive JPEG, but are too small to resemble the steps and slopes of weights."""
    patches = np.random.default_rng(seed).integers(0, 256, (SIZE // 2, SIZE // 2, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((SIZE, SIZE), Image.Resampling.NEAREST)


@dataclass
class Captured:
    """The captured traffic of a run, and the canaries in it.

    Attributes:
        traffic: The decoded traffic.
        rest: Bytes that belong to no complete exchange.
        num_bytes: Number of bytes from and to the devices, without TLS.
        found: Occurrences of canaries.
        disclosed: Occurrences of concepts that the devices disclose, found by the same search.
    """

    traffic: Traffic
    rest: list[bytes]
    num_bytes: tuple[int, int]
    found: list[Found]
    disclosed: list[Found]


@dataclass
class Captures:
    """An honest run with a failing device, the canaries in files after it, and a run with a leaking device."""

    config: FederationConfig
    honest: Captured
    in_files: list[Found]
    disclosed_in_files: list[Found]
    leaking: Captured
    in_log_of_leaking: list[Found]


def federation(root: Path, model: Path) -> FederationConfig:
    """Return the configuration of the run, after creating homes with pictures and prompts."""
    config = parse_config(
        {
            "homes": root / "homes",
            "output": root / "out",
            "num_clients": NUM_DEVICES,
            "model": {"name": str(model), "height": SIZE, "width": SIZE},
            "adapter": {"rank": 4},
            "rounds": {"count": 3},
            "training": {"local_steps": 2, "personal_steps": 1, "batch_size": 2, "learning_rate": 1e-2},
            "generation": {
                "num_inference_steps": 4,
                "num_shared_steps": 2,
                "executor": "member",
                "scorer": "none",
            },
        }
    )
    for client in range(NUM_DEVICES):
        device = _device(config, client)
        pictures = [pattern(10 * client + number) for number in range(2)]
        device.add_images({"image": picture, "caption": CAPTION} for picture in pictures)
        for prompt in PROMPTS[client::NUM_DEVICES]:
            device.add_prompt(prompt)
    _device(config, NUM_DEVICES - 1).add_prompt(ALONE)
    return config


def _device(config: FederationConfig, client: int) -> Device:
    pipe, base_hash = base_model(config.model)
    taxonomy = canary_taxonomy()
    return Device(config.home(client), pipe, base_hash=base_hash, taxonomy=taxonomy, seed=client)


def canaries(config: FederationConfig, prompts: tuple[str, ...] = (*PROMPTS, ALONE)) -> Canaries:
    """Those of the homes, with the pictures that were drawn there."""
    pipe: Pipeline = base_model(config.model)[0]
    devices = [_device(config, client) for client in range(NUM_DEVICES)]
    private = [item for device in devices for item in device.images.all()]
    drawn = [device.gallery.image(entry.task_id) for device in devices for entry in device.gallery.all()]
    images, captions = [item.image for item in private], [item.caption for item in private]
    texts = [*prompts, CAPTION]

    def ids(text: str) -> tuple[int, ...]:
        return tuple(pipe.tokenizer(text, add_special_tokens=False).input_ids)

    public = words_of(" ".join(texts)) - {MODIFIER, LEAF}
    return Canaries(
        words=frozenset({MODIFIER, LEAF, LEAF_CONCEPT}),
        token_ids=tuple(ids(text) for text in texts),
        public_ids=frozenset(token for word in public for token in ids(word)),
        embeddings=tuple(encode_text(pipe, texts)["prompt_embeds"].numpy()),
        pixels=tuple(np.asarray(image) for image in [*images, *drawn]),
        latents=tuple(encode_images(pipe, images, captions, height=SIZE, width=SIZE).latents.numpy()),
    )


def capture(root: Path, model: Path) -> Captures:
    """Run the honest and the leaking deployment, and search both."""
    config = federation(root, model)
    with deployment(config, root / "server", NUM_DEVICES) as devices:
        door = devices.state.port
        with recording(devices.folder, door) as recorder, recording(devices.folder, door) as of_leaking:
            _start(devices, recorder, dict(enumerate(("honest", "honest", "failing"))))
            run_on_devices(devices.folder, devices.state, config)
            honest = _searched(recorder, canaries(config))
            folders = {"server": devices.folder, "output": config.output}
            for client in range(NUM_DEVICES):
                folders[f"relay {client}"] = config.home(client) / "relay"
            in_files = _in_folders(Search(canaries(config)), folders)
            disclosed = _in_folders(Search(_disclosed()), folders)
            _restart_leaking(devices, of_leaking, config)
            again = config.model_copy(
                update={
                    "name": "leaking",
                    "output": root / "leaking",
                    "rounds": config.rounds.model_copy(update={"count": 1}),
                }
            )
            run_on_devices(devices.folder, devices.state, again)
            leaking = _searched(of_leaking, canaries(config))
            log = (devices.folder / f"device{NUM_DEVICES - 1}.log").read_text()
            said = Search(canaries(config)).values(log, "log")
    return Captures(config, honest, in_files, disclosed, leaking, said)


@dataclass
class SharingCapture:
    """A run by the denoiser's distance, and the canaries in files after it.

    Attributes:
        config: The configuration of the run.
        honest: The captured traffic. Paths of the devices' owners are canaries too.
        in_files: Occurrences of canaries in files of the server, of the run's output and of relays.
    """

    config: FederationConfig
    honest: Captured
    in_files: list[Found]


def sharing_federation(root: Path, model: Path) -> FederationConfig:
    """Return the configuration of a run by the denoiser's distance, after creating homes and the owners' files.

    All prompts that differ are in one group, whose shared steps run on a mean. Of the members that answer an offer, one
    takes the first hand-off and one the last.
    """
    owners = root / OWNERS
    owners.mkdir()
    section = {
        "atlas": owners / "public.atlas",
        "calibration": owners / "curve.json",
        "min_captions": len(PUBLIC_CAPTIONS),
        "ladder": [LAST_RUNG],
        "conditioning": "mean",
        "equal_prompts": True,
    }
    config = parse_config(
        {
            "homes": root / "homes",
            "output": root / "out",
            "num_clients": NUM_DEVICES,
            "model": {"name": str(model), "height": SIZE, "width": SIZE},
            "adapter": {"rank": 4},
            "rounds": {"count": 0},
            "generation": {
                "num_inference_steps": STEPS,
                "num_shared_steps": FIRST_RUNG,
                "scorer": "none",
                "denoiser": section,
            },
        }
    )
    _write_owners_files(config)
    for client, prompts in enumerate(WORDS_OF_ANY_KIND):
        device = _device(config, client)
        device.add_images([{"image": pattern(10 * client), "caption": CAPTION}])
        for prompt in prompts:
            device.add_prompt(prompt)
    return config


def _write_owners_files(config: FederationConfig) -> None:
    """Write an atlas, and a calibration by which only near members take the last hand-off."""
    section = config.generation.denoiser
    assert section is not None
    assert section.atlas is not None
    assert section.calibration is not None
    pipe, base_hash = base_model(config.model)
    scale = config.generation.guidance_scale
    plan = build_plan(
        pipe,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        height=SIZE,
        width=SIZE,
        base_hash=base_hash,
    )
    space = DenoiserSpace.of(plan)
    captions = sorted(PUBLIC_CAPTIONS)
    build_tree(space.hash, {"model": "small"}, captions, phi(pipe, space, captions), 2).write(section.atlas)
    parts = [prompt_conditioning(pipe, prompt) for prompt in SUMMED]
    mean = np.mean([fixed_point.flat(part) for part in parts], axis=0)
    (middle,) = phi_of(pipe, space, placed(pipe, fixed_point.unflat(mean, parts[0])))
    answering = SUMMED[:-1]
    near = sum(distance(each, middle) for each in phi(pipe, space, answering)) / len(answering)
    many, few = 4000, 40
    distances = (*np.linspace(0, 0.999 * near, many).tolist(), *np.linspace(1.001 * near, 1e6, few).tolist())
    damages: dict[str, tuple[float, ...]] = {
        str(FIRST_RUNG): (0.0,) * (many + few),
        str(LAST_RUNG): (0.0,) * many + (0.9,) * few,
    }
    scheduler = plan.scheduler_class
    Calibration(
        space.hash, plan.fingerprint(), scheduler, STEPS, scale, "public", 0, distances, damages
    ).write(section.calibration)


def capture_sharing(root: Path, model: Path) -> SharingCapture:
    """Run the deployment that shares by the denoiser's distance, and search it.

    One device fails at its offers, and with one prompt at a key and at the tags of an equality test.
    """
    config = sharing_federation(root, model)
    section = config.generation.denoiser
    assert section is not None
    with deployment(config, root / "server", NUM_DEVICES) as devices:
        trusted = root / OWNERS / "trusted"
        keys = [config.home(client) / "keys" / "device.key.pub" for client in range(NUM_DEVICES)]
        trusted.write_bytes(b"\n".join(key.read_bytes() for key in keys))
        options = ["--atlas", str(section.atlas), "--calibration", str(section.calibration)]
        options += ["--min-captions", str(section.min_captions), "--sums", "--trusted-keys", str(trusted)]
        options += ["--equal-prompts"]
        with recording(devices.folder, devices.state.port) as recorder:
            _start(devices, recorder, dict(enumerate(("honest", "honest", "failing offers"))), options)
            run_on_devices(devices.folder, devices.state, config)
            traffic, exchanges = _snapshot(recorder)
    # without the processes, which would go on to send and to log
    secrets = canaries(config, tuple({prompt: None for own in WORDS_OF_ANY_KIND for prompt in own}))
    owners = frozenset({OWNERS, str(config.homes)})
    found = _found(traffic, exchanges, replace(secrets, words=secrets.words | owners))
    folders = {"server": devices.folder, "output": config.output}
    folders |= {f"relay {client}": config.home(client) / "relay" for client in range(NUM_DEVICES)}
    in_files = _in_folders(Search(secrets), folders)
    honest = Captured(*traffic, found, [])
    return SharingCapture(config, honest, in_files)


def _start(
    devices: Devices, recorder: Recorder, ways: Mapping[int, str], options: Sequence[str] = ()
) -> None:
    """Start devices behind a recorder, and wait until the server has activated them.

    Args:
        devices: The deployment.
        recorder: The recorder.
        ways: How each client behaves, see `canary_device`.
        options: Further options of `fedaigc device start`.
    """
    log = devices.folder / "flower" / "superlink.log"
    before = log.read_text(errors="replace").count("Activated node_id=")
    behind = devices.state
    devices.state = replace(behind, port=recorder.port)
    homes = [
        devices.begin(client, rogue=way, rogues="tools.deployment.canary_device", options=options)
        for client, way in ways.items()
    ]
    devices.state = behind
    for home in homes:
        wait_for(partial(answers, home), _START_TIMEOUT_S)
    activated = before + len(homes)
    wait_for(
        lambda: log.read_text(errors="replace").count("Activated node_id=") >= activated, _START_TIMEOUT_S
    )


def _restart_leaking(devices: Devices, recorder: Recorder, config: FederationConfig) -> None:
    last = NUM_DEVICES - 1
    devices.running[last].terminate()
    devices.running[last].wait(300)
    _device(config, last).add_prompt(PROMPTS[last])
    _start(devices, recorder, {last: "leaking"})


def _searched(recorder: Recorder, secrets: Canaries) -> Captured:
    traffic, exchanges = _snapshot(recorder)
    found = [_found(traffic, exchanges, each) for each in (secrets, _disclosed())]
    return Captured(*traffic, *found)


# decoded traffic, bytes of no complete exchange, and the number of bytes both ways
_Traffic = tuple[Traffic, list[bytes], tuple[int, int]]


def _snapshot(recorder: Recorder) -> tuple[_Traffic, list[Exchange]]:
    """Return what a recorder has so far."""
    exchanges = list(recorder.exchanges())
    return (decoded(exchanges), recorder.rest(), recorder.num_bytes()), exchanges


def _found(captured: _Traffic, exchanges: Sequence[Exchange], canaries: Canaries) -> list[Found]:
    search, (traffic, rest, _) = Search(canaries), captured
    found = [each for told in traffic.told for each in search.values(told.content, str(told))]
    found += [each for name, plain in traffic.plain for each in search.values(plain, name)]
    for exchange in exchanges:
        for half in (exchange.request, exchange.response):
            found += search.raw(half.head, f"{exchange.path} head")
            found += search.raw(half.body, f"{exchange.path} body")
    return found + [each for data in rest for each in search.raw(data, "cut off")]


def _disclosed() -> Canaries:
    return Canaries(frozenset({FRUIT, MAMMAL, TABLE, RIVER, "a fruit on a table", "a mammal near a river"}))


def _in_folders(search: Search, folders: dict[str, Path]) -> list[Found]:
    return [each for name, folder in folders.items() for each in search.files(folder, name)]


def table(captured: Captured) -> Iterator[str]:
    """Yield one line per kind of message and call, with their number and size."""
    kinds: dict[str, list[Told]] = {}
    for told in captured.traffic.told:
        kinds.setdefault(str(told), []).append(told)
    for kind, all_told in sorted(kinds.items()):
        sizes = [told.num_bytes for told in all_told]
        yield f"{kind:32} {len(sizes):5} x {median(sizes):10,.0f} bytes, {min(sizes):,} to {max(sizes):,}"
    for call, number in sorted(captured.traffic.calls.items()):
        yield f"call {call:27} {number:5} x, {captured.traffic.call_bytes[call]:12,} bytes in all"
    up, down = captured.num_bytes
    yield f"from the devices {up:,} bytes, to them {down:,}, without TLS"
