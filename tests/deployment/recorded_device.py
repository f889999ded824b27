"""The command line, in a process that writes down what it sends to other devices, as it is before TLS.

python -m tests.deployment.recorded_device FILE device COMMAND ...
"""

import sys
import threading
from pathlib import Path

from fedaigc.cli.main import app
from fedaigc.deployment.peer.frames import Frames


def main() -> None:
    path, *words = sys.argv[1:]
    send, one_at_a_time = Frames.send, threading.Lock()
    with Path(path).open("w") as record:

        def sending(self: Frames, data: bytes) -> None:
            with one_at_a_time:  # each connection has a thread
                record.write(data.hex() + "\n")
                record.flush()
            send(self, data)

        Frames.send = sending  # type: ignore[method-assign]
        app(words)


if __name__ == "__main__":
    main()
