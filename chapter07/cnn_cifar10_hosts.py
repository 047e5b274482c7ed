"""Several machines train cnn_cifar10.py's network together. Beyond the book, on JAX.

The same command runs on each host, only the last number differs (docs/scaling.md has the setup):

    export KERAS_BACKEND=jax
    python chapter07/cnn_cifar10_hosts.py --coordinator 10.0.0.1:9876 --num-hosts 2 --host-index 0
    python chapter07/cnn_cifar10_hosts.py --coordinator 10.0.0.1:9876 --num-hosts 2 --host-index 1

Every host holds the whole network and computes the gradients of its share of each batch; their
average moves the weights. So the losses are those of one process with the same batch, to rounding.
"""

import argparse
import json
import os
import socket
import sys
import zlib
from pathlib import Path

import jax
import keras
import numpy as np
import tensorflow as tf
from cnn_cifar10 import build_network, create_callbacks, load_data, open_run, report
from jax.experimental.multihost_utils import assert_equal, broadcast_one_to_all


def join_hosts(coordinator, num_hosts, host_index):
    """Meet the others at `coordinator`, host 0's "HOST:PORT"; before JAX lists its devices."""
    if keras.backend.backend() != "jax":
        raise ValueError(f"needs KERAS_BACKEND=jax, but this is {keras.backend.backend()}")
    host, _, port = coordinator.rpartition(":")
    if host_index == 0:  # where it cannot listen, JAX would crash
        socket.create_server((host, int(port))).close()
    print(f"Host {host_index} of {num_hosts} waits for the others at {coordinator} …", flush=True)
    # The last argument: it does not listen on every network that host 0 is on.
    jax.distributed.initialize(
        coordinator, num_hosts, host_index, coordinator_bind_address=coordinator
    )


def share_rows(data, batch_size, seed):
    """This host's share of each training batch, a tf.data.Dataset, and of the validation rows.

    All hosts agree on the order, by `seed`. Images that fill no batch are left out, in each epoch
    others; of the validation rows, those that would give one device more than the others.
    """
    hosts, index = jax.process_count(), jax.process_index()
    mine = slice(index * batch_size // hosts, (index + 1) * batch_size // hosts)
    rows = tf.data.Dataset.from_tensor_slices((data["train_X"], data["train_y"]))
    batches = rows.shuffle(len(rows), seed=seed).batch(batch_size, drop_remainder=True)
    even = len(data["val_y"]) // jax.device_count() * jax.device_count()
    val = tuple(data[name][:even][index::hosts] for name in ("val_X", "val_y"))
    return batches.map(lambda X, y: (X[mine], y[mine])), val


class OnThisHost(keras.callbacks.CallbackList):
    """Callbacks that save a model: while Keras distributes, all hosts would have to take part."""

    def on_epoch_end(self, epoch, logs=None):
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        super().on_epoch_end(epoch, logs)
        keras.distribution.set_distribution(distribution)


def copy_to_all(model, last):
    """Give `model`, on every host, the weights and the optimizer's state of host 0's `last`."""

    def state(model):
        model.optimizer.build(model.trainable_variables)
        return [*model.variables, *model.optimizer.variables]

    values = [np.asarray(keras.ops.convert_to_numpy(v)) for v in state(last or model)]
    for variable, value in zip(state(model), broadcast_one_to_all(values), strict=True):
        variable.assign(value)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinator", metavar="HOST:PORT", required=True, help="of host 0")
    parser.add_argument("--num-hosts", type=int, required=True, help="of them all together")
    parser.add_argument("--host-index", type=int, required=True, help="which one this is, from 0")
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or an .npz file')
    parser.add_argument("--epochs", type=int, default=20, help="default: 20")
    parser.add_argument("--batch-size", type=int, default=32, help="of all hosts together")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="on host 0; default: runs/cnn_cifar10_hosts")
    args = parser.parse_args()
    if args.epochs < 1 or args.batch_size < 1 or not 0 <= args.seed < 2**32:
        parser.error("--epochs and --batch-size begin at 1, --seed at 0")
    if not 0 <= args.host_index < args.num_hosts:
        parser.error("--host-index runs from 0 to --num-hosts - 1")
    suffix = f"_{Path(args.data).stem}" if args.data else ""
    args.run_dir = args.run_dir or Path("runs", f"cnn_cifar10_hosts{suffix}")
    return args


def train_together(args, data, settings):
    """This host's part in the training; host 0 writes."""
    train_X, train_y = data["train_X"], data["train_y"]
    alike = zlib.crc32(json.dumps([settings, args.epochs]).encode())
    assert_equal(np.uint32(alike), "not all hosts have the same data and options")
    rows = len(train_y) // args.batch_size * args.batch_size
    if args.batch_size % jax.device_count() or not rows:
        raise ValueError(f"--batch-size: not a multiple of {jax.device_count()}, or above the set")
    last, done = None, 0
    if args.host_index == 0:
        last, done = open_run(args.run_dir, settings, train_X[:rows], train_y[:rows])
    done = int(broadcast_one_to_all(np.int32(done)))
    keras.utils.set_random_seed((args.seed + done) % 2**32)
    by_share_rows = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(by_share_rows)
    model = build_network(1, train_X.shape[1:], len(data["class_names"]))
    copy_to_all(model, last)
    batches, val = share_rows(data, args.batch_size, args.seed + done)
    callbacks = [OnThisHost(create_callbacks(model, args.run_dir))] if args.host_index == 0 else []
    try:
        model.fit(
            batches,
            epochs=args.epochs,
            initial_epoch=done,
            validation_data=val,
            validation_batch_size=jax.local_device_count() * 100,
            callbacks=callbacks,
            shuffle=False,  # the rows are, anew in each epoch
            verbose="auto" if args.host_index == 0 else 2,
        )
        keras.distribution.set_distribution(None)  # from here on, each host for itself
        jax.distributed.shutdown()  # waits until all are here
    except (RuntimeError, ValueError) as error:  # JAX raises the one or the other
        again = "start all again, and they go on from the last finished epoch"
        raise ConnectionError(f"another host is lost; {again} ({error})") from error


def main():
    args = parse_arguments()
    try:
        data = load_data(args.data)  # before JAX's time-outs begin
        settings = {"script": "cnn_cifar10_hosts", "class_names": data["class_names"]}
        settings |= {"seed": args.seed, "batch_size": args.batch_size}
        rows = [data[name].tobytes() for name in ("train_X", "train_y", "val_X")]
        settings["data"] = zlib.crc32(b"".join(rows))
        join_hosts(args.coordinator, args.num_hosts, args.host_index)
        train_together(args, data, settings)
    except (Exception, KeyboardInterrupt) as error:
        text = " ".join(str(error).split()) or "interrupted"
        print(f"error: {text}", file=sys.stderr, flush=True)
        os._exit(1)  # at once; an orderly end would wait for the other hosts
    if args.host_index == 0:
        metrics = settings | {"num_hosts": args.num_hosts, "epochs": args.epochs}
        model = keras.models.load_model(args.run_dir / "model.keras")
        metrics |= report(model, data, args.run_dir)
        (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
        print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
