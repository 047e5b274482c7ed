"""Several machines train one network together: what cnn_cifar10.py does for `--num-hosts`.

Beyond the book, whose "Multi-GPU models in Keras" ends at one machine; docs/scaling.md tells how
to set it up. The same command runs on every host, only the last number differs:

    export KERAS_BACKEND=jax
    python chapter07/cnn_cifar10.py --coordinator 10.0.0.1:9876 --num-hosts 2 --host-index 0
    python chapter07/cnn_cifar10.py --coordinator 10.0.0.1:9876 --num-hosts 2 --host-index 1

This is data parallelism. Every host holds the whole network, computes the gradients of its share
of each batch, and the shares are averaged before the weights move: the result is that of one
machine with the same batch, as long as all hosts start from the same weights and agree on the
order of the images. Both are taken care of here. Tested with Keras 3.15 and JAX 0.10 on Linux.
"""

import os
import socket
import time

import keras
import numpy as np

WAIT_SECONDS = 300  # for the other hosts to come


def join_hosts(coordinator, num_hosts, host_index):
    """Meet the other hosts and split every batch from now on over all of their devices.

    Must come before the first computation: JAX lists its devices once.

    Args:
        coordinator: "HOST:PORT" of host 0, as every host can reach it.
        num_hosts: how many processes there are. host_index: which of them this is, from 0.

    Raises:
        ValueError: the backend is not JAX, or the coordinator is no HOST:PORT.
        OSError: the others could not be reached.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"--num-hosts needs Keras on JAX, but this is Keras on {keras.backend.backend()}: "
            "install requirements-cluster.txt and set KERAS_BACKEND=jax"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator {coordinator}: expected HOST:PORT, such as 10.0.0.1:9876")
    print(f"Host {host_index} of {num_hosts} waits for the others at {coordinator} …", flush=True)
    if host_index == 0:  # JAX would listen on every network that the machine is on
        os.environ.setdefault("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
    else:  # JAX itself would end in a stack trace
        wait_for_port(host, int(port))
    try:
        keras.distribution.initialize(coordinator, num_hosts, host_index)
    except RuntimeError as error:
        raise OSError(
            f"could not meet the other hosts at {coordinator} ({first_line(error)}); is host 0 "
            "running, the port open, and has every host its own --host-index?"
        ) from error
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)  # HostShare does it
    )


def wait_for_port(host, port):
    """Return when something listens there; raises OSError after `WAIT_SECONDS`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=10).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(
                    f"no answer from {host}:{port} for {WAIT_SECONDS} seconds ({error}); is host 0 "
                    "running there, and does a firewall let the port through?"
                ) from error
        time.sleep(1)


class HostShare(keras.utils.PyDataset):
    """One host's share of every batch.

    The order of the images depends on the seed and the epoch alone. So all hosts agree on it
    without a word, one host alone would go through the same batches, and a resumed run goes on
    with the order that it would have had.

    Args:
        X, y: all images and labels, on every host the same.
        batch_size: images in a batch of all hosts together.
        num_hosts, host_index: whose share.
        seed: for the order; None keeps that of the arrays.
        epoch: the first epoch, from 0.
        multiple: the images are cut to a multiple of this, the number of devices, so that the
            last batch divides, too.
    """

    def __init__(
        self, X, y, batch_size, num_hosts, host_index, seed=None, epoch=0, multiple=1, **kwargs
    ):
        super().__init__(**kwargs)
        self.X, self.y = X, y
        self.batch_size, self.seed, self.epoch = batch_size, seed, epoch
        self.num_hosts, self.host_index = num_hosts, host_index
        self.rows = len(X) // multiple * multiple
        self.set_order()

    def set_order(self):
        order = np.arange(len(self.X))
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        self.order = order[: self.rows]

    def __len__(self):
        return -(-self.rows // self.batch_size)

    def __getitem__(self, index):
        batch = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        mine = np.array_split(batch, self.num_hosts)[self.host_index]
        return self.X[mine], self.y[mine]

    def on_epoch_end(self):
        self.epoch += 1
        self.set_order()


class OnlyHere(keras.callbacks.CallbackList):
    """Callbacks of one host, which write files while the others wait.

    Saving a model makes Keras create a scratch variable. As long as a distribution is set, that is
    something that all hosts must do together, and JAX stops when only one of them does.
    """

    def on_epoch_end(self, epoch, logs=None):
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        super().on_epoch_end(epoch, logs)
        keras.distribution.set_distribution(distribution)


class Backup(keras.callbacks.BackupAndRestore):
    """`BackupAndRestore` without the restoring, which `restore_everywhere` does on all hosts."""

    def on_train_begin(self, logs=None):
        pass


def restore_everywhere(model, build_network, backup_dir, epochs, host_index):
    """Give every host the weights and the optimizer's state that host 0 has backed up.

    Only host 0 needs the file: no shared disk.

    Args:
        model: the network to fill, on all hosts. build_network: makes another one like it.
        backup_dir: of `BackupAndRestore`, on host 0.
        epochs: how many finished epochs host 0 found there; ignored on the others.

    Returns:
        The number of finished epochs, on all hosts.
    """
    from jax.experimental import multihost_utils

    epochs = int(multihost_utils.broadcast_one_to_all(np.int32(epochs)))
    if not epochs:
        return 0
    model.optimizer.build(model.trainable_variables)
    values = [np.zeros(v.shape, v.dtype) for v in state(model)]
    if host_index == 0:
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)  # this copy is host 0's alone
        local = build_network()
        local.optimizer.build(local.trainable_variables)
        local.load_weights(backup_dir / "latest.weights.h5")
        values = [v.numpy() for v in state(local)]
        keras.distribution.set_distribution(distribution)
    for variable, value in zip(
        state(model), multihost_utils.broadcast_one_to_all(values), strict=True
    ):
        variable.assign(np.asarray(value))
    return epochs


def state(model):
    """All that training changes: the network's variables and its optimizer's."""
    return [*model.variables, *model.optimizer.variables]


def part_from_hosts():
    """End the common work: from here on each host computes for itself."""
    import jax

    keras.distribution.set_distribution(None)
    jax.distributed.shutdown()  # waits until every host is here


def first_line(error):
    """The first line of an error's text; JAX's go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0]
