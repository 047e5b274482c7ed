"""The networks of chapters 5, 7 and 9 against the same in plain PyTorch, in one run.

    pip install -r requirements-bench.txt
    python benchmarks/bench_pytorch.py                # about 4 minutes on 2 cores
    python benchmarks/bench_pytorch.py --only lstm

Ours: the scripts' own `build_network` and `fit`. PyTorch's: the same layers, sizes, batch size,
float32 and Adam in a training loop as its tutorials write it, except that it takes its batches from
one tensor in memory by a random order, which is faster than a DataLoader. Both sum up the loss and
the accuracy. Each runs in a process of its own, so that their threads do not meet, and they take
turns, an epoch at a time, after two that warm up. The CNN also against PyTorch with its memory
format `channels_last`, which suits convolutions on a CPU better.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from common import ROOT, load_script, record, time_fit

NETWORKS = {  # chapter's script, rows an epoch, batch size, what a row is
    "mlp": ("chapter05/mlp_mnist.py", 30_000, 30, "digits"),
    "cnn": ("chapter07/cnn_cifar10.py", 6_400, 32, "images"),
    "lstm": ("chapter09/lstm_bitcoin_stateful.py", 16_000, 100, "forecasts"),
}
WARM_UP = 2


def make_rows(name):
    """X and y of an epoch; the speed does not depend on what they show."""
    _, count, *_ = NETWORKS[name]
    rng = np.random.default_rng(1)
    if name == "lstm":
        X = rng.normal(size=(count, 10, 1)).astype("float32")
        return X, np.tanh(X.mean(axis=1))
    shape = {"mlp": (784,), "cnn": (32, 32, 3)}[name]
    X = rng.integers(0, 256, (count, *shape)).astype("uint8")
    return X, rng.integers(0, 10, count).astype("int64")


def prepare_keras(name):
    """(an epoch of training as a function that returns seconds, number of weights trained)"""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    script, _, batch_size, _ = NETWORKS[name]
    script = load_script(ROOT / script)
    X, y = make_rows(name)
    if name == "lstm":  # stateful, and like PyTorch's it answers after a window's last minute
        model = script.build_network(X, "minmax", batch_size, book_order=True)
    else:
        model = script.build_network()
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    if name == "lstm":  # stateful: it reads its streams in order
        return lambda: time_fit(model, X, y, batch_size=batch_size, shuffle=False), weights
    rows = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(X), seed=1).batch(batch_size)
    return lambda: time_fit(model, rows, shuffle=False), weights


def prepare_torch(name, channels_last=False):
    """The same in plain PyTorch."""
    import torch
    from torch import nn

    torch.manual_seed(1)

    class Bitcoin(nn.Module):
        """Chapter 9's stateful network: each batch goes on from the states of the last."""

        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(1, 100, num_layers=2, batch_first=True)
            self.output = nn.Linear(100, 1)
            self.states = None

        def forward(self, x):
            x, states = self.lstm(x, self.states)
            self.states = tuple(state.detach() for state in states)
            return torch.tanh(self.output(x[:, -1]))

    def dense(*sizes):
        """Fully connected layers with ReLU between them, no softmax: the loss has it."""
        pairs = zip(sizes, sizes[1:], strict=False)
        stack = [part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())]
        return stack[:-1]

    def convolve(channels, filters):
        norm = nn.BatchNorm2d(filters)
        return nn.Conv2d(channels, filters, 3), nn.ReLU(), norm, nn.MaxPool2d(2)

    fc1, relu1, fc2, relu2, output = dense(32 * 6 * 6, 512, 256, 10)
    model = {
        "mlp": lambda: nn.Sequential(*dense(784, 512, 256, 128, 10)),
        "cnn": lambda: nn.Sequential(
            *convolve(3, 64),
            *convolve(64, 32),
            nn.Flatten(),
            *(fc1, relu1, nn.Dropout(0.2), fc2, relu2, nn.Dropout(0.2), output),
        ),
        "lstm": Bitcoin,
    }[name]()
    loss_function = nn.MSELoss() if name == "lstm" else nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    _, count, batch_size, _ = NETWORKS[name]
    X, y = map(torch.from_numpy, make_rows(name))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    if name == "cnn":
        model = model.to(memory_format=memory_format)
        # PyTorch wants the channels first, wherever they lie in memory.
        X = X.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)

    def run_epoch():
        model.train()
        start = time.perf_counter()
        order = torch.arange(count) if name == "lstm" else torch.randperm(count)
        total_loss = total_right = torch.zeros(())
        for rows in order.split(batch_size):
            inputs, targets = X[rows], y[rows]
            if name != "lstm":
                inputs = inputs.float().contiguous(memory_format=memory_format) / 255
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = loss_function(outputs, targets)
            loss.backward()
            optimizer.step()
            total_loss = total_loss + loss.detach()
            if name != "lstm":
                total_right = total_right + (outputs.argmax(dim=1) == targets).sum()
        return time.perf_counter() - start

    # PyTorch keeps two biases for each LSTM gate where Keras keeps one.
    names = {key: value for key, value in model.named_parameters() if "bias_hh" not in key}
    return run_epoch, sum(value.numel() for value in names.values())


def work(side, name):
    """In a process of its own: an epoch for each line read, its seconds printed."""
    if side == "ours":
        run_epoch, weights = prepare_keras(name)
    else:
        run_epoch, weights = prepare_torch(name, channels_last="channels_last" in side)
    for _ in range(WARM_UP):
        run_epoch()
    print(json.dumps({"weights": weights}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": run_epoch()}), flush=True)


def measure(name, repeats):
    """Speeds of all sides, by turns."""
    command = [sys.executable, __file__, "--only", name, "--side"]
    sides = ["PyTorch", "PyTorch, channels_last"] if name == "cnn" else ["PyTorch"]
    workers = {
        side: subprocess.Popen(
            [*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for side in (*sides, "ours")
    }

    def read(side):
        for line in workers[side].stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"error: {side}: the process stopped; its message is above")

    weights = {side: read(side)["weights"] for side in workers}
    assert len(set(weights.values())) == 1, f"different networks: {weights}"
    speeds = {side: [] for side in workers}
    for _ in range(repeats):
        for side, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            speeds[side].append(NETWORKS[name][1] / read(side)["seconds"])
    for worker in workers.values():
        worker.communicate()
    return speeds, weights["ours"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=NETWORKS, help="one network (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs each (default: 5)")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return work(args.side, args.only)
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: PyTorch is not installed: pip install -r requirements-bench.txt")
    print(f"{os.cpu_count()} cores, float32, median (lowest to highest) of {args.repeats} epochs")
    for name in [args.only] if args.only else NETWORKS:
        script, _, batch_size, rows = NETWORKS[name]
        speeds, weights = measure(name, args.repeats)
        print(f"{name}: {weights:,} weights, batch size {batch_size}")
        for side, values in speeds.items():
            low, median, high = min(values), statistics.median(values), max(values)
            print(f"  {side}: {median:.0f} {rows}/s ({low:.0f} to {high:.0f})")
        ours = speeds.pop("ours")
        what = f"chapter {int(script[7:9])}, {name.upper()}: training"
        for side, theirs in speeds.items():
            ratio = statistics.median(ours) / statistics.median(theirs)
            print(f"  ratio to {side}: {ratio:.2f}")
            record(what, f"{rows}/s", theirs, ours, side)


if __name__ == "__main__":
    main()
