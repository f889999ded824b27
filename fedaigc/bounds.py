"""The bounds of everything that crosses a boundary between machines, in one table.

A message, an option or a file from another machine may cost this one no more than these numbers allow. They
are no settings: a value within them can still be refused by its device's owner (`device.limits`), or be wrong
for other reasons.
"""

from typing import Final

# pictures and plans: what a finish or a share may ask a device to compute
MAX_IMAGE_SIDE: Final = 2048
MAX_IMAGE_PIXELS: Final = 2048 * 2048
MAX_DENOISING_STEPS: Final = 1000
MAX_GUIDANCE_SCALE: Final = 100.0

# training: what an order to train may ask
MAX_TRAINING_STEPS: Final = 10_000
MAX_BATCH_SIZE: Final = 256
MAX_RANK: Final = 512

# updates and shared states: the largest value is float16's, in which a pipeline may run
MAX_WEIGHT: Final = 65504.0
# B A is small also for a huge A beside a tiny B, but A x is not
MAX_FACTOR_VALUE: Final = 100.0
MAX_EXAMPLES: Final = 10_000_000
MAX_LOSS: Final = 1e6

# tasks and signatures
# names of tasks of which nothing is disclosed: an order may name one of so many of the latest polls
MAX_POLLS_KEPT: Final = 8

# strings and headers

# rounds
MAX_ROUND: Final = 1_000_000

# connections to a server's door. An incomplete one takes some 0.1 MB, for TLS
MAX_CONNECTIONS: Final = 1024
MAX_CONNECTIONS_OF_ADDRESS: Final = 512
MAX_UNPROVEN_CONNECTIONS: Final = 128
MAX_BODY_BYTES: Final = 16 << 20
MAX_BODY_BYTES_IN_FLIGHT: Final = 64 << 20
MAX_UNPROVEN_BYTES_IN_FLIGHT: Final = 8 << 20
