"""Chapter 7's CNN on one and on two hosts: images per second, each host pinned to one core.

    python benchmarks/bench_hosts.py      # Linux, about four minutes on 2 cores

Both hosts are processes on this machine, which talk over localhost: the cores are shared out, the
network is not measured. One process on one core, then two on a core each, train the same network on
JAX with the same batches of all hosts together; beside them what needs neither JAX nor hosts: one
process of TensorFlow on both cores. The first epoch, with its compilation, is left out.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import ROOT, record

sys.path.insert(0, str(ROOT / "chapter07"))


def work(args):
    """One host: train, and let host 0 print the images per second after the first epoch."""
    plain = not args.num_hosts
    os.sched_setaffinity(0, [0, 1] if plain else [args.host_index])  # before JAX counts the cores
    import jax
    import keras
    import tensorflow as tf
    from cnn_cifar10 import build_network, load_data
    from cnn_cifar10_hosts import join_hosts, share_rows

    class Timer(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seconds = []

        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(time.perf_counter() - self.start)

    data, timer = load_data("sample"), Timer()
    keras.utils.set_random_seed(1)
    if plain:
        rows = tf.data.Dataset.from_tensor_slices((data["train_X"], data["train_y"]))
        batches = rows.shuffle(len(rows), seed=1).batch(args.batch_size, drop_remainder=True)
    else:
        join_hosts(args.coordinator, args.num_hosts, args.host_index)
        distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
        keras.distribution.set_distribution(distribution)
        batches, _ = share_rows(data, args.batch_size, seed=1)
    build_network().fit(batches, epochs=args.epochs, verbose=0, callbacks=[timer])
    if args.host_index == 0:
        rows = len(data["train_y"]) // args.batch_size * args.batch_size
        print("\n" + json.dumps([rows / seconds for seconds in timer.seconds[1:]]))
    if not plain:
        jax.distributed.shutdown()


def measure(num_hosts, batch_size, epochs):
    """Images per second of each epoch with `num_hosts` processes; 0: one, on TensorFlow."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, __file__, "--coordinator", coordinator]
    command += ["--num-hosts", str(num_hosts), "--batch-size", str(batch_size)]
    command += ["--epochs", str(epochs), "--host-index"]
    environment = os.environ | {"KERAS_BACKEND": "jax" if num_hosts else "tensorflow"}
    hosts = [
        subprocess.Popen([*command, str(index)], stdout=subprocess.PIPE, text=True, env=environment)
        for index in range(num_hosts or 1)
    ]
    outputs = [host.communicate()[0] for host in hosts]
    if any(host.returncode for host in hosts):
        sys.exit("error: a host failed; its message is above")
    return json.loads(outputs[0].splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=4, help="of each run (default: 4)")
    parser.add_argument("--batch-size", type=int, help="(default: 32, then 256)")
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--num-hosts", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--host-index", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.coordinator:
        return work(args)
    print(f"{args.epochs - 1} epochs each, median (lowest to highest)")
    for batch_size in [args.batch_size] if args.batch_size else [32, 256]:
        speeds = {}
        for num_hosts in (0, 1, 2):
            speeds[num_hosts] = new = measure(num_hosts, batch_size, args.epochs)
            name = f"JAX, {num_hosts} host(s)" if num_hosts else "TensorFlow"
            low, middle, high = min(new), statistics.median(new), max(new)
            print(f"batch {batch_size}, {name}: {middle:.0f} images/s ({low:.0f} to {high:.0f})")
        what = f"chapter 7, CNN on two hosts of one core, batch size {batch_size}"
        record(what, "images/s", speeds[1], speeds[2], against="one host of one core")
        record(what, "images/s", speeds[0], speeds[2], against="TensorFlow on both cores")


if __name__ == "__main__":
    main()
