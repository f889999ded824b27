"""The bounds of everything that crosses a boundary between machines, in one table.

A message, an option or a file from another machine may cost this one no more than these numbers allow. They
are no settings: a value within them can still be refused by its device's owner (`device.limits`), or be wrong
for other reasons. `tests/security/test_bounds.py` exceeds each of them.
"""

from collections.abc import Mapping
from typing import Final

# pictures and plans: what a finish or a share may ask a device to compute
MAX_IMAGE_SIDE: Final = 2048
MAX_IMAGE_PIXELS: Final = 2048 * 2048
MAX_DENOISING_STEPS: Final = 1000
MAX_GUIDANCE_SCALE: Final = 100.0
# evaluations of a plan: two for each of its steps under Heun, and a few more
MAX_EVALUATIONS: Final = 4 * MAX_DENOISING_STEPS
MAX_TRAINING_TIMESTEPS: Final = 100_000
# of noise: what a torch generator takes
MAX_SEED: Final = 2**64 - 1
# a negative noise seed is one of which all bits count: see `rng.noise_generator`
MIN_NOISE_SEED: Final = -(2**63)

# training: what an order to train may ask
MAX_TRAINING_STEPS: Final = 10_000
MAX_BATCH_SIZE: Final = 256
MAX_RANK: Final = 512
MAX_GRADIENT_BATCHES: Final = 100
MAX_INTERVALS: Final = 100

# updates and shared states: the largest value is float16's, in which a pipeline may run
MAX_WEIGHT: Final = 65504.0
# B A is small also for a huge A beside a tiny B, but A x is not
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
METRICS: Final = ("shared_loss", "personal_loss")

# tasks and signatures
# names of tasks of which nothing is disclosed: an order may name one of so many of the latest polls
MAX_POLLS_KEPT: Final = 8
MAX_TASKS_OF_A_DEVICE: Final = 1024
MAX_TASKS: Final = 8192
# open signatures that are compared with each other: the cost of grouping is the square of it
MAX_COMPARED: Final = 256
MAX_PROMPT_CHARACTERS: Final = 1000
# three enums and two ids take half of this
MAX_SIGNATURE_CHARACTERS: Final = 256
# JSON writes a character outside the basic plane in twelve
MAX_OPEN_SIGNATURE_CHARACTERS: Final = MAX_SIGNATURE_CHARACTERS + 12 * MAX_PROMPT_CHARACTERS
MAX_UNREADABLE: Final = 1_000_000

# packets
MAX_PACKET_HEADER_BYTES: Final = 1 << 18
MAX_PACKET_BYTES: Final = 1 << 28
# the most that a scheduler keeps is four earlier outputs and a sample
MAX_HISTORY_TENSORS: Final = 16
MAX_HISTORY_ENTRIES: Final = 64
# a value that is small enough to lie in the header
MAX_SMALL_VALUES: Final = 16
# latents of a plan, and what its scheduler keeps, in standard deviations of the plan's latents; networks
# that were never trained reach a hundred
MAX_LATENT_DEVIATIONS: Final = 4096.0

# strings and headers
TASK_ID: Final = "[0-9a-f]{16}"
FINGERPRINT: Final = "[0-9a-f]{16,64}"
VERSION: Final = "[0-9A-Za-z.+-]{1,32}"
TENSOR_NAME: Final = r"[0-9A-Za-z_.:/-]{1,256}"
MAX_JSON_DEPTH: Final = 12
MAX_NUMBER_CHARACTERS: Final = 40
MAX_STRING: Final = 4096
# an error's text: in the log of a home, in a server's record
MAX_NOTE_CHARACTERS: Final = 20_000
MAX_REASON_CHARACTERS: Final = 300
MAX_TOLD_MISTAKES: Final = 20
MAX_MISTAKE_CHARACTERS: Final = 1000
# a message of Flower: its records, and the values of each
MAX_RECORDS: Final = 8
MAX_RECORD_VALUES: Final = 64
MAX_ARRAYS: Final = 1
MAX_LIST_ITEMS: Final = MAX_TASKS_OF_A_DEVICE
MAX_KEY_CHARACTERS: Final = 256
# a reply to a server: its bytes in all, more where its order is large, and the parts that Flower makes of it
MIN_REPLY_BYTES: Final = 1 << 28
REPLY_BYTES_RATIO: Final = 16
MAX_REPLY_PARTS: Final = 1 << 14
MAX_ARRAY_HEADER_BYTES: Final = 4096
# the agent's socket, the owner's page
MAX_FRAME_HEADER_BYTES: Final = 1 << 20
MAX_FRAME_BODY_BYTES: Final = 1 << 30
MAX_PAGE_BODY_BYTES: Final = 1 << 16

# rounds
MAX_ROUND: Final = 1_000_000

# connections to a server's door. An incomplete one takes some 0.1 MB, for TLS
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
# numbers by their names in `FederationConfig`, of either sign; where a name is missing, MAX_OTHER_NUMBER
MAX_OTHER_NUMBER: Final = 10_000
CONFIG: Final[Mapping[str, float]] = {
    "seed": 2**63,
    "num_clients": MAX_CLIENTS,
    "workers": 1024,
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
    "training.local_steps": MAX_TRAINING_STEPS,
    "training.personal_steps": MAX_TRAINING_STEPS,
    "training.batch_size": MAX_BATCH_SIZE,
    "training.learning_rate": 100,
    "training.min_snr_gamma": 1e6,
    "training.condition_dropout": 1,
    "training.clip_norm": 1e9,
    "clients.ranks": MAX_RANK,
    "clients.local_steps": MAX_TRAINING_STEPS,
    "generation.num_inference_steps": MAX_DENOISING_STEPS,
    "generation.guidance_scale": MAX_GUIDANCE_SCALE,
    "generation.num_shared_steps": MAX_EVALUATIONS,
    "generation.min_public_prompts": 1_000_000,
    "generation.max_distance": 100,
    "generation.strip_steps": MAX_EVALUATIONS,
    "generation.deadline_s": MAX_SECONDS,
    "generation.window_s": MAX_SECONDS,
    "generation.serve_s": MAX_SECONDS,
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
# options of strategies by name; whole numbers of other names up to MAX_OTHER_NUMBER, others up to the last
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
