"""Chapter 7's CNN on one and on two hosts: images per second, each host pinned to one core.

    KERAS_BACKEND=jax python benchmarks/bench_hosts.py      # Linux, about three minutes on 2 cores

Both hosts are processes on this machine, which talk over localhost: the cores are shared out, the
network is not measured. One process on one core, then two on a core each, train the same network
with the same batches of all hosts together; the first epoch, with its compilation, is left out.
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
    """One host: train, and let host 0 print the seconds of each epoch after the first."""
    os.sched_setaffinity(0, [args.host_index])  # before JAX counts the cores
    import jax
    import keras
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
    join_hosts(args.coordinator, args.num_hosts, args.host_index)
    keras.utils.set_random_seed(1)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    batches, _ = share_rows(data, args.batch_size, seed=1)
    build_network().fit(batches, epochs=args.epochs, verbose=0, callbacks=[timer])
    if args.host_index == 0:
        rows = len(data["train_y"]) // args.batch_size * args.batch_size
        print("\n" + json.dumps([rows / seconds for seconds in timer.seconds[1:]]))
    jax.distributed.shutdown()


def measure(num_hosts, batch_size, epochs):
    """Images per second of each epoch with `num_hosts` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, __file__, "--coordinator", coordinator]
    command += ["--num-hosts", str(num_hosts), "--batch-size", str(batch_size)]
    command += ["--epochs", str(epochs), "--host-index"]
    hosts = [
        subprocess.Popen([*command, str(index)], stdout=subprocess.PIPE, text=True)
        for index in range(num_hosts)
    ]
    outputs = [host.communicate()[0] for host in hosts]
    if any(host.returncode for host in hosts):
        sys.exit("error: a host failed; its message is above")
    return json.loads(outputs[0].splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6, help="of each run (default: 6)")
    parser.add_argument("--batch-size", type=int, help="(default: 32, then 256)")
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--num-hosts", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--host-index", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "jax"
    if args.coordinator:
        return work(args)
    print(f"{args.epochs - 1} epochs each, median (lowest to highest), one core per host")
    for batch_size in [args.batch_size] if args.batch_size else [32, 256]:
        medians, hosts = [], []
        for num_hosts in (1, 2):
            speeds = measure(num_hosts, batch_size, args.epochs)
            medians.append(statistics.median(speeds))
            hosts.append(speeds)
            print(
                f"batch {batch_size:4}, {num_hosts} host(s): {medians[-1]:6.0f} images per second "
                f"({min(speeds):.0f} to {max(speeds):.0f})"
            )
        print(f"batch {batch_size:4}, ratio: {medians[1] / medians[0]:.2f}")
        what = f"chapter 7, CNN on two hosts of one core, batch size {batch_size}"
        record(what, "images/s", *hosts, against="one host of one core")


if __name__ == "__main__":
    main()
