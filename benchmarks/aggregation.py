"""Aggregate 10 clients of 50 million parameters: FedIT here, Flower's FedAvg, and an in-place torch sum.

    python benchmarks/aggregation.py [--clients 10] [--parameters 50000000] [--turns 5]

Every implementation starts from the same messages as bytes (Flower's `Array`), decodes them and ends with the
weighted mean in float32. Each runs in a process of its own; the turns of the three alternate. Memory is the peak of
the resident set during the work, above the memory of the process with its first message, in units of one model (4
bytes per parameter). Messages are made one at a time, outside of time and memory, if the implementation can take
them one at a time; Flower's cannot, so all but one of its messages count. Prints JSON.
"""

import argparse
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import torch

TENSORS = 512


def shapes(parameters: int) -> dict[str, tuple[int, int]]:
    """Return equal factor pairs with nearly `parameters` values in all."""
    side = parameters // TENSORS // 8
    return {f"layer{i:03d}.lora_A": (8, side) for i in range(TENSORS // 2)} | {
        f"layer{i:03d}.lora_B": (side, 8) for i in range(TENSORS // 2)
    }


def values(parameters: int, client: int) -> np.ndarray:
    """Return one client's flat update."""
    n = sum(rows * columns for rows, columns in shapes(parameters).values())
    return np.full(n, 0.5, np.float32) * (client + 1)


class Work:
    """Seconds and the largest resident set (bytes) within its contexts; `start` is that of the first entry."""

    def __init__(self) -> None:
        self.seconds, self.start, self.peak = 0.0, 0, 0
        self._process = psutil.Process()

    def __enter__(self) -> None:
        self._stop = threading.Event()
        self.start = self.start or self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._began = time.perf_counter()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss)
            if self._stop.wait(0.002):
                return

    def __exit__(self, *details: object) -> None:
        self.seconds += time.perf_counter() - self._began
        self._stop.set()
        self._thread.join()


def fold(
    messages: Iterator[Any], take: Callable[[Any], None], finish: Callable[[], Any]
) -> tuple[float, Any, int]:
    """Return seconds, result and extra bytes of taking the messages one by one, without making them."""
    work = Work()
    while (message := next(messages, None)) is not None:
        with work:
            take(message)
        del message
    with work:
        result = finish()
    return work.seconds, result, work.peak - work.start


def ours(parameters: int, clients: int) -> tuple[float, Any, int]:
    """Run read_update with all its checks, then FedIT."""
    from fedaigc.diffusion.adapters.stages import SharedState
    from fedaigc.federation.wire.messages import update_record
    from fedaigc.federation.wire.read_update import read_update
    from fedaigc.rng import numpy_rng
    from fedaigc.strategy.registry import load_strategy
    from fedaigc.strategy.rule import Received, Update

    sizes = shapes(parameters)
    layers = sorted({name.rpartition(".")[0] for name in sizes})
    # meta tensors: the state's own values are not part of the aggregation
    lora = {
        layer: (
            torch.empty(sizes[f"{layer}.lora_A"], device="meta"),
            torch.empty(sizes[f"{layer}.lora_B"], device="meta"),
        )
        for layer in layers
    }
    shared = SharedState("base", lora, 8, 8.0)
    received, rule = Received(shared, 1), load_strategy("fedit")
    rule.start(shared, 1)

    def message(client: int) -> Any:
        flat, tensors, start = torch.from_numpy(values(parameters, client)), {}, 0
        for name, tensor in shared.tensors().items():
            tensors[name] = flat[start : start + tensor.numel()].view(tensor.shape)
            start += tensor.numel()
        sent = Update(client, client + 1, 1, tensors, 8)
        return client, update_record(sent, received, "float32", numpy_rng(0, "wire"))

    def take(message: Any) -> None:
        client, record = message
        rule.add(read_update(record, client, received, rule, "float32", num_steps=1))

    seconds, state, extra = fold((message(client) for client in range(clients)), take, rule.finish)
    return seconds, float(next(iter(state.tensors().values()))[0, 0]), extra


def torch_sum(parameters: int, clients: int) -> tuple[float, Any, int]:
    """Decode each message and add it in place."""
    from flwr.app import Array

    total = torch.zeros(0)
    weights = 0

    def take(message: Any) -> None:
        nonlocal total, weights
        weight, array = message
        x = torch.from_numpy(array.numpy())
        total = x.mul_(weight) if not weights else total.add_(x, alpha=weight)
        weights += weight

    messages = ((client + 1, Array(values(parameters, client))) for client in range(clients))
    seconds, mean, extra = fold(messages, take, lambda: total.div_(weights))
    return seconds, float(mean[0]), extra


def flower(parameters: int, clients: int) -> tuple[float, Any, int]:
    """Run Flower's FedAvg on one array per tensor, as its examples send them."""
    from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
    from flwr.serverapp.strategy import FedAvg

    def message(client: int) -> Any:
        flat, arrays, start = values(parameters, client), {}, 0
        for name, (rows, columns) in shapes(parameters).items():
            arrays[name] = Array(flat[start : start + rows * columns].reshape(rows, columns))
            start += rows * columns
        content = RecordDict(
            {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": client + 1})}
        )
        metadata = Metadata(0, "", client, 0, "", "", 0.0, 1.0, "train")
        return Message(content=content, metadata=metadata)  # type: ignore[call-overload]

    made = [message(client) for client in range(clients)]
    strategy = FedAvg()
    work = Work()
    with work:
        arrays, _ = strategy.aggregate_train(1, made)
    assert arrays is not None
    # the strategy takes all messages at once: they count as memory, except for the one that every way holds
    held = (clients - 1) * 4 * values(parameters, 0).size
    mean = float(next(iter(arrays.values())).numpy()[0, 0])
    return work.seconds, mean, work.peak - work.start + held


WAYS = {"fedaigc": ours, "torch sum": torch_sum, "flower FedAvg": flower}


def _child(name: str, parameters: int, clients: int, queue: Any) -> None:
    torch.set_num_threads(1)
    queue.put(WAYS[name](parameters, clients))


def run(name: str, parameters: int, clients: int) -> tuple[float, float, int]:
    """Run one turn in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(name, parameters, clients, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=50_000_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    turns = [
        {name: run(name, options.parameters, options.clients) for name in WAYS} for _ in range(options.turns)
    ]
    model = 4 * values(options.parameters, 0).size
    # sum k (k / 2) / sum k over k = 1 to n
    n = options.clients
    expected = 0.5 * (2 * n + 1) / 3
    report: dict[str, dict[str, Any]] = {}
    for name in WAYS:
        assert all(abs(turn[name][1] - expected) < 1e-3 for turn in turns), (
            name,
            turns[0][name][1],
            expected,
        )
        report[name] = {
            "seconds_median": statistics.median(turn[name][0] for turn in turns),
            "seconds": [turn[name][0] for turn in turns],
            "peak_models": max(turn[name][2] for turn in turns) / model,
        }
    base = report["torch sum"]["seconds_median"]
    ratios = {name: values["seconds_median"] / base for name, values in report.items()}
    print(
        json.dumps(
            {"options": vars(options), "ways": report, "seconds_over_torch_sum": ratios},
            indent=1,
            sort_keys=True,
        )
    )


if __name__ == "__main__":
    main()
