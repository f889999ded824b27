"""Bounds of everything that crosses a boundary between machines, in one table.

A message, an option or a file from another machine may cost this machine no more than these numbers allow.
The bounds are not settings: a value within them can still be refused by the owner of the device
(`device.limits`) or be invalid for other reasons. Tests in `tests/security` exceed each of them.

They are applied by `federation.wire.message_bounds` and `record_bounds` (messages), `federation.config`'s
`config_bounds` (configurations), and the readers of files. `device.limits` and `device.training.training_limits`
are an owner's settings, and `federation.server.update_bounds` compares updates with each other.
"""

from collections.abc import Mapping
from typing import Final

# images and plans: what an order to finish or to share may ask a device to compute
MAX_IMAGE_SIDE: Final = 2048
MAX_IMAGE_PIXELS: Final = 2048 * 2048
MAX_DENOISING_STEPS: Final = 1000
MAX_GUIDANCE_SCALE: Final = 100.0
# denoiser evaluations of a plan: two per step under Heun, and a few more
MAX_EVALUATIONS: Final = 4 * MAX_DENOISING_STEPS
MAX_TRAINING_TIMESTEPS: Final = 100_000
# noise seeds: the largest that a torch generator accepts
MAX_SEED: Final = 2**64 - 1
# all bits of a negative noise seed count: see `rng.noise_generator`
MIN_NOISE_SEED: Final = -(2**63)

# training: what an order to train may ask for
MAX_TRAINING_STEPS: Final = 10_000
MAX_BATCH_SIZE: Final = 256
MAX_RANK: Final = 512
MAX_GRADIENT_BATCHES: Final = 100
MAX_INTERVALS: Final = 100

# updates and shared states: the largest float16 value, because a pipeline may run in float16
MAX_WEIGHT: Final = 65504.0
# with a huge A and a tiny B, the product B A is small but A x is not
MAX_FACTOR_VALUE: Final = 100.0
MAX_LOSS: Final = 1e6
MAX_VALUES: Final = 2**31
MAX_TENSORS: Final = 1 << 14
MAX_DIMENSIONS: Final = 6
MAX_TENSOR_NAME: Final = 256
MAX_MANIFEST_CHARACTERS: Final = 1 << 22
MAX_STATE_HEADER_CHARACTERS: Final = 1024
MAX_ALPHA: Final = 1e6
MAX_EXAMPLES: Final = 10_000_000
METRICS: Final = ("shared_loss", "personal_loss", "validation_loss")

# tasks and signatures
# tasks of which nothing is disclosed get new names at each poll: an order may use those of the latest polls
MAX_POLLS_KEPT: Final = 8
MAX_TASKS_OF_A_DEVICE: Final = 1024
MAX_ATLAS_NODES: Final = 1 << 20
# hand-offs of one offer, and offers that a device answers for one task: each answer says how near its prompt is
MAX_LADDER: Final = 8
MAX_OFFERS: Final = 2
MAX_PHI_VALUES: Final = 1 << 22
# of a node under local differential privacy: above it there is no noise to speak of
MAX_EPSILON: Final = 20.0
MAX_TASKS: Final = 8192
# open signatures that are compared with each other: the cost of grouping grows with the square
MAX_COMPARED: Final = 256
MAX_PROMPT_CHARACTERS: Final = 1000
# a signature's enums and concept ids take half of this
MAX_SIGNATURE_CHARACTERS: Final = 256
# JSON escapes a character outside the Basic Multilingual Plane as twelve characters
MAX_OPEN_SIGNATURE_CHARACTERS: Final = MAX_SIGNATURE_CHARACTERS + 12 * MAX_PROMPT_CHARACTERS
MAX_UNREADABLE: Final = 1_000_000

# conditionings and their sums: FLUX has 2 million values
MAX_CONDITIONING_VALUES: Final = 1 << 24
MAX_SUM_MEMBERS: Final = MAX_TASKS_OF_A_DEVICE
# a node key in the OpenSSH format, and its signature
MAX_KEY_BYTES: Final = 1024
# of an equality test, whose tags must fit into a reply of constant size; and tests that a device answers for one task
MAX_EQUALITY_MEMBERS: Final = 64
MAX_EQUALITY_TESTS: Final = 2

# packets
MAX_PACKET_HEADER_BYTES: Final = 1 << 18
MAX_PACKET_BYTES: Final = 1 << 28
# wrapped keys of a sealed packet, each of which a member tries
MAX_SEALED_MEMBERS: Final = 64
# schedulers keep at most four earlier outputs and a sample
MAX_HISTORY_TENSORS: Final = 16
MAX_HISTORY_ENTRIES: Final = 64
# a tensor of at most this many values lies in the header
MAX_SMALL_VALUES: Final = 16
# latents and scheduler history, in standard deviations of the plan's latents; untrained networks reach 100
MAX_LATENT_DEVIATIONS: Final = 4096.0

# strings and headers
TASK_ID: Final = "[0-9a-f]{16}"
ROUND_NUMBER: Final = "[0-9a-f]{32}"
FINGERPRINT: Final = "[0-9a-f]{16,64}"
VERSION: Final = "[0-9A-Za-z.+-]{1,32}"
TENSOR_NAME: Final = r"[0-9A-Za-z_.:/-]{1,256}"
MAX_JSON_DEPTH: Final = 12
MAX_NUMBER_CHARACTERS: Final = 40
MAX_STRING: Final = 4096
# texts of errors: in the log of a home, in a server's record
MAX_NOTE_CHARACTERS: Final = 20_000
MAX_REASON_CHARACTERS: Final = 300
MAX_TOLD_MISTAKES: Final = 20
MAX_MISTAKE_CHARACTERS: Final = 1000
# a Flower message: its records, and the values of each record
MAX_RECORDS: Final = 8
MAX_RECORD_VALUES: Final = 64
MAX_ARRAYS: Final = 1
MAX_LIST_ITEMS: Final = MAX_TASKS_OF_A_DEVICE
MAX_KEY_CHARACTERS: Final = 256
# a reply to a server: its total bytes (more for a large order), and the parts that Flower splits it into
MIN_REPLY_BYTES: Final = 1 << 28
REPLY_BYTES_RATIO: Final = 16
MAX_REPLY_PARTS: Final = 1 << 14
MAX_ARRAY_HEADER_BYTES: Final = 4096
# the agent's socket and the owner's page
MAX_FRAME_HEADER_BYTES: Final = 1 << 20
MAX_FRAME_BODY_BYTES: Final = 1 << 30
MAX_PAGE_BODY_BYTES: Final = 1 << 16

# devices without a server: how many one is paired with, a message other than a packet, connections at a time, prompts
# that are compared for one request, and requests of a device within an hour
MAX_PEERS: Final = 64
MAX_PEER_MESSAGE: Final = 1 << 14
MAX_PEER_CONNECTIONS: Final = 16
MAX_PEER_TASKS: Final = 64
MAX_PEER_REQUESTS: Final = 60
MAX_PEER_COST: Final = 100
# announcements of devices on a network that are remembered
MAX_ANNOUNCEMENTS: Final = 256
# a cluster without an edge: its devices, the prompts that each offers in a round, and frames of a device in a round
MAX_CLUSTER: Final = 16
MAX_CLUSTER_PROMPTS: Final = 8
MAX_CLUSTER_FRAMES: Final = 1024

# rounds
MAX_ROUND: Final = 1_000_000

# connections to a server's door; an incomplete one takes about 0.1 MB, for TLS
MAX_CONNECTIONS: Final = 1024
MAX_CONNECTIONS_OF_ADDRESS: Final = 512
MAX_UNPROVEN_CONNECTIONS: Final = 128
MAX_BODY_BYTES: Final = 16 << 20
MAX_BODY_BYTES_IN_FLIGHT: Final = 64 << 20
MAX_UNPROVEN_BYTES_IN_FLIGHT: Final = 8 << 20

# the configuration of a run, as a server sends it to devices
MAX_CONFIG_CHARACTERS: Final = 1 << 18
MAX_CLIENTS: Final = 4096
MAX_SECONDS: Final = 1e8
# largest magnitudes by key of `FederationConfig`; a key that is missing here has MAX_OTHER_NUMBER
MAX_OTHER_NUMBER: Final = 10_000
CONFIG: Final[Mapping[str, float]] = {
    "seed": 2**63,
    "num_clients": MAX_CLIENTS,
    "workers": 1024,
    "client_gpus": 1024,
    "threads": 1024,
    "bindings": MAX_CLIENTS,
    "model.height": MAX_IMAGE_SIDE,
    "model.width": MAX_IMAGE_SIDE,
    "adapter.rank": MAX_RANK,
    "adapter.alpha": MAX_ALPHA,
    "adapter.boundary_timestep": MAX_TRAINING_TIMESTEPS,
    "rounds.count": MAX_ROUND,
    "rounds.clients": MAX_CLIENTS,
    "rounds.deadline_s": MAX_SECONDS,
    "rounds.dropout_rate": 1,
    "rounds.max_norm_ratio": 1e9,
    "rounds.max_weight_ratio": 1e9,
    "rounds.attackers": MAX_CLIENTS,
    "rounds.validation_fraction": 0.5,
    "rounds.early_stopping.patience": MAX_ROUND,
    "rounds.early_stopping.min_delta": 1e9,
    "training.local_steps": MAX_TRAINING_STEPS,
    "training.personal_steps": MAX_TRAINING_STEPS,
    "training.batch_size": MAX_BATCH_SIZE,
    "training.learning_rate": 100,
    "training.min_snr_gamma": 1e6,
    "training.condition_dropout": 1,
    "training.clip_norm": 1e9,
    "clients.ranks": MAX_RANK,
    "clients.local_steps": MAX_TRAINING_STEPS,
    "edges.count": MAX_CLIENTS,
    "edges.clients": MAX_CLIENTS,
    "edges.dropout_rate": 1,
    "generation.num_inference_steps": MAX_DENOISING_STEPS,
    "generation.guidance_scale": MAX_GUIDANCE_SCALE,
    "generation.true_cfg_scale": MAX_GUIDANCE_SCALE,
    "generation.num_shared_steps": MAX_EVALUATIONS,
    "generation.costs": MAX_PEER_COST,
    "generation.edge_batch": 1024,
    "generation.min_public_prompts": 1_000_000,
    "generation.max_distance": 100,
    "generation.strip_steps": MAX_EVALUATIONS,
    "generation.deadline_s": MAX_SECONDS,
    "generation.window_s": MAX_SECONDS,
    "generation.serve_s": MAX_SECONDS,
    "generation.denoiser.min_captions": 1_000_000,
    "generation.denoiser.min_devices": MAX_CLIENTS,
    "generation.denoiser.tolerance": 1e6,
    "generation.denoiser.risk": 1.0,
    "generation.denoiser.ladder": MAX_DENOISING_STEPS,
    "generation.denoiser.noise_epsilon": 1e6,
    "generation.denoiser.noises": 64,
    "generation.denoiser.dimensions": 1 << 16,
    "generation.denoiser.epsilon": MAX_EPSILON,
    "generation.planning.tolerance": 1e6,
    "generation.planning.risk": 1.0,
    "generation.link.bit_error_rate": 1,
    "generation.link.snr_db": 100,
    "generation.link.distance_m": 1e6,
    "generation.link.tx_power_w": 1e6,
    "generation.link.bandwidth_hz": 1e12,
    "generation.link.speed_m_s": 3e8,
    "generation.link.protected_planes": 8,
    "generation.link.max_transmissions": 1000,
    "generation.link.send_above_db": 100,
    "generation.link.wait_steps": MAX_EVALUATIONS,
}
# largest magnitudes of strategy options by name; for other names, integers have MAX_OTHER_NUMBER and other
# numbers MAX_OPTION
OPTIONS: Final[Mapping[str, float]] = {
    "personal_steps": MAX_TRAINING_STEPS,
    "steps": MAX_TRAINING_STEPS,
    "first_steps": MAX_TRAINING_STEPS,
    "batches": MAX_GRADIENT_BATCHES,
    "intervals": MAX_INTERVALS,
    "period": MAX_ROUND,
    "rate": 100,
    "mu": 1e6,
    "proximal_mu": 1e6,
}
MAX_OPTION: Final = 1e9
MAX_OPTIONS: Final = 32
MAX_OPTION_CHARACTERS: Final = 256
