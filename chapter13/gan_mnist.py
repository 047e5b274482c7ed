"""Train the book's generative adversarial network (GAN) to write digits.

Book: chapter 13, "Generating MNIST images using a Keras GAN".

    python chapter13/gan_mnist.py                          # the real set (11 MB, fetched once)
    python chapter13/gan_mnist.py --data sample            # 5,000 of its digits, needs no network
    python chapter13/gan_mnist.py --data my_images/        # square images of your own
    python chapter13/gan_mnist.py --soft-labels --label-noise 0.05 --dropout-generator 0.25

Two networks play against each other. The generator turns 100 random numbers into an image; the
discriminator says how probable it is that an image is real. The discriminator learns to tell the
two kinds apart, the generator learns what makes it say "real". What to look for: grids of images,
always from the same random numbers, that turn from noise into digits within a few hundred batches,
and a discriminator that is right in more than half of the cases, but not in all.
Needs the TensorFlow backend (its gradient tape); evaluate_gan.py judges the result.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sys
import time
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
import pandas as pd
from keras import layers
from PIL import Image, UnidentifiedImageError

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter13"
SCRIPT = "chapter13/gan_mnist.py"
NOISE_DIM = 100
MOMENTS = (1, 50, 200)  # batches after which the book shows its generator; then every epoch


def load_data(source=None):
    """Return images of digits.

    Args:
        source: None for MNIST as Keras serves it (LeCun, Cortes and Burges), "sample" for 5,000
            of its digits in data/samples, or the path of an .npz file with Keras's keys
            (`x_train`, and for evaluate_gan.py `y_train`, `x_test`, `y_test`), or of a folder of
            images.

    Returns:
        dict with `train_X`: uint8 (n, side, side, 1 or 3), 0-255, and where the source has them
        `train_y`, `test_X`, `test_y` (the labels: int64 (n,)). To train a GAN takes only the first.

    Raises:
        OSError: nothing there, or MNIST is not on this machine and cannot be fetched.
        ValueError: it is there, but not in the format above; the message says what is wrong.
    """
    if source is None:
        return check_images(download(keras.datasets.mnist, "MNIST"), "MNIST")
    return read_images(DATA_DIR / "samples" / "mnist.npz" if source == "sample" else Path(source))


def download(dataset, name):
    """A set from Keras's cache (~/.keras/datasets), fetched on first use; dict of four arrays."""
    socket.setdefaulttimeout(20)  # a silent network must not hold us for minutes
    try:
        (train_X, train_y), (test_X, test_y) = dataset.load_data()
    except Exception as error:  # Keras raises a bare Exception when the download fails
        raise OSError(
            f"{name} is not on this machine and could not be fetched ({error}). With a network, "
            f"run `python data/fetch.py {name.lower().replace('-', '')}`; without one, "
            "`--data sample` works now, and data/README.md tells how to bring the file by hand"
        ) from error
    return {"x_train": train_X, "y_train": train_y, "x_test": test_X, "y_test": test_y}


def read_images(path):
    """The images of an .npz file or a folder, as `load_data` returns them."""
    if path.is_dir():
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in (".png", ".jpg", ".jpeg")
        ]
        images = []
        for file in files:
            try:
                with Image.open(file) as image:
                    images.append(np.asarray(image.convert("L" if image.mode == "L" else "RGB")))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise ValueError(f"{file} is not a readable image ({error})") from None
            if images[-1].shape != images[0].shape:
                raise ValueError(
                    f"{file} has the shape {images[-1].shape}, {files[0].name} {images[0].shape}; "
                    "all must have one size and kind"
                )
        if not images:
            raise ValueError(f"{path} holds no .png or .jpg images")
        return check_images({"x_train": np.stack(images)}, path)
    try:
        with np.load(path, allow_pickle=False) as archive:  # a pickle could run anything
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; give an .npz file or a folder") from None
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a readable .npz of plain arrays ({error}); "
            "numpy.savez(path, x_train=...) writes one"
        ) from error
    return check_images(arrays, path)


def check_images(arrays, name):
    """Arrays with Keras's keys, checked, under the keys of `load_data`."""
    if "x_train" not in arrays:
        raise ValueError(f"{name}: x_train missing (it has {', '.join(arrays) or 'nothing'})")
    data = {}
    for part in ("train", "test"):
        X, y = arrays.get(f"x_{part}"), arrays.get(f"y_{part}")
        if X is None:
            continue
        X = X[..., None] if X.ndim == 3 else X
        if X.dtype != np.uint8 or X.ndim != 4 or X.shape[3] not in (1, 3):
            raise ValueError(
                f"{name}: x_{part} is {X.dtype} {X.shape}; expected uint8 (images, side, side) "
                "or (images, side, side, 1 or 3)"
            )
        side = X.shape[1]
        if side != X.shape[2] or side % 4 or side < 16:
            raise ValueError(
                f"{name}: images are {side} x {X.shape[2]} pixels; expected squares whose side is "
                "16 or more and a multiple of 4, since the generator doubles it twice"
            )
        data[f"{part}_X"] = X
        if y is not None:
            if y.shape not in ((len(X),), (len(X), 1)) or not np.issubdtype(y.dtype, np.integer):
                raise ValueError(
                    f"{name}: y_{part} is {y.dtype} {y.shape}; expected one whole number for each "
                    f"of {len(X)} images"
                )
            data[f"{part}_y"] = y.ravel().astype("int64")
    if len(data["train_X"]) < 64:
        raise ValueError(f"{name}: {len(data['train_X'])} images; a GAN needs 64 or (far) more")
    return data


def scale(images):
    """Pixels 0-255 to -1 … 1, the range of the generator's tanh."""
    return (images.astype("float32") - 127.5) / 127.5


def build_generator(image_shape=(28, 28, 1), noise_dim=NOISE_DIM, dropout=0.0):
    """The book's generator: from a quarter of the side, doubled twice.

    Returns:
        keras.Model from noise (n, noise_dim), normally distributed, to images (n, *image_shape),
        -1 to 1. With `dropout` a Dropout layer follows the first two convolutions.
    """
    quarter = image_shape[0] // 4
    inputs = keras.Input((noise_dim,), name="noise")
    x = layers.Dense(128 * quarter * quarter, activation="relu", name="fc")(inputs)
    x = layers.Reshape((quarter, quarter, 128), name="reshape")(x)
    x = layers.BatchNormalization(momentum=0.8, name="bn1")(x)
    for number, filters in enumerate((128, 64), start=1):
        x = layers.UpSampling2D(name=f"up{number}")(x)
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv{number}")(x)
        x = layers.Activation("relu", name=f"relu{number}")(x)
        x = layers.BatchNormalization(momentum=0.8, name=f"bn{number + 1}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = layers.Conv2D(image_shape[2], 3, padding="same", name="conv3")(x)
    outputs = layers.Activation("tanh", name="image")(x)
    return keras.Model(inputs, outputs, name="generator")


def build_discriminator(image_shape=(28, 28, 1)):
    """The book's discriminator.

    Returns:
        keras.Model from images (n, *image_shape), -1 to 1, to the probability that they are real
        (n, 1).
    """
    inputs = keras.Input(image_shape, name="image")
    x = layers.Conv2D(32, 3, strides=2, padding="same", name="conv1")(inputs)
    x = layers.LeakyReLU(0.2, name="leaky1")(x)
    x = layers.Dropout(0.25, name="dropout1")(x)
    x = layers.Conv2D(64, 3, strides=2, padding="same", name="conv2")(x)
    if image_shape[0] // 4 % 2:  # 7 x 7 becomes 8 x 8, which the next layer can halve
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(x)
    x = layers.LeakyReLU(0.2, name="leaky2")(x)
    x = layers.Dropout(0.25, name="dropout2")(x)
    x = layers.BatchNormalization(momentum=0.8, name="bn1")(x)
    x = layers.Conv2D(128, 3, strides=2, padding="same", name="conv3")(x)
    x = layers.LeakyReLU(0.2, name="leaky3")(x)
    x = layers.Dropout(0.25, name="dropout3")(x)
    x = layers.BatchNormalization(momentum=0.8, name="bn2")(x)
    x = layers.Conv2D(256, 3, padding="same", name="conv4")(x)
    x = layers.LeakyReLU(0.2, name="leaky4")(x)
    x = layers.Dropout(0.25, name="dropout4")(x)
    x = layers.Flatten(name="flatten")(x)
    outputs = layers.Dense(1, activation="sigmoid", name="real")(x)
    return keras.Model(inputs, outputs, name="discriminator")


def build_stacked_model(generator, discriminator):
    """The book's third model, for reading beside `GAN.train_step`, which does the same.

    Compile the discriminator before the call for its own training. Where the book sets `trainable`
    for good, Keras 3 would never train the discriminator again: whoever uses this model must set
    `discriminator.trainable` before each update (benchmarks/bench_gan.py does).

    Returns:
        keras.Model from noise to the discriminator's opinion of the generator's image; of its
        weights only the generator's are trainable.
    """
    discriminator.trainable = False
    noise = keras.Input(generator.input_shape[1:], name="noise")
    return keras.Model(noise, discriminator(generator(noise)), name="stacked")


def create_optimizer(learning_rate=0.0002):
    """Adam as the book has it for both networks."""
    return keras.optimizers.Adam(learning_rate, beta_1=0.5)


def without_traces(network, inputs):
    """Call a network as in training, with its batch's own statistics, but let it learn nothing.

    Batch normalization moves its running statistics at such a call; they are put back.
    """
    import tensorflow as tf

    statistics = network.non_trainable_weights
    before = [tf.identity(statistic) for statistic in statistics]
    outputs = network(inputs, training=True)
    for statistic, value in zip(statistics, before, strict=True):
        statistic.assign(value)
    return outputs


class GAN(keras.Model):
    """Both networks; one training step, compiled as a whole, makes the chapter's three updates.

    Args:
        generator, discriminator: the networks.
        seed: of the noise. It depends on this and the number of the step alone, so that a training
            that was killed goes on with the noise that it would have had.
        soft_labels: real images are 0.7 to 1 and generated ones 0 to 0.3 instead of 1 and 0.
        label_noise: share of the discriminator's labels that are swapped.
    """

    def __init__(self, generator, discriminator, seed=0, soft_labels=False, label_noise=0.0):
        super().__init__(name="gan")
        self.generator, self.discriminator = generator, discriminator
        self.seed, self.soft_labels, self.label_noise = seed, soft_labels, label_noise
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in ("d_loss", "d_accuracy", "g_loss")
        }

    def compile(self, g_optimizer=None, d_optimizer=None):
        """Set the optimizers (default: `create_optimizer`, one for each network)."""
        super().compile(optimizer=None, loss=None, jit_compile=False)
        self.g_optimizer = g_optimizer or create_optimizer()
        self.d_optimizer = d_optimizer or create_optimizer()
        self.g_optimizer.build(self.generator.trainable_variables)
        self.d_optimizer.build(self.discriminator.trainable_variables)
        self.built = True

    @property
    def metrics(self):
        return list(self.trackers.values())

    def random(self, stream, shape, distribution="normal"):
        """Random numbers for this step; `stream` tells several draws of one step apart."""
        import tensorflow as tf

        step = tf.cast(self.g_optimizer.iterations, "int32")
        draw = {"normal": tf.random.stateless_normal, "uniform": tf.random.stateless_uniform}
        return draw[distribution](shape, tf.stack([self.seed * 100 + stream, step]))

    def labels(self, real, number, stream):
        """Labels (number, 1) of the discriminator's images, all real or all generated."""
        import tensorflow as tf

        labels = tf.fill((number, 1), 1.0 if real else 0.0)
        if self.soft_labels:
            labels = 0.7 * labels + 0.3 * self.random(stream, (number, 1), "uniform")
        if self.label_noise:
            swap = self.random(stream + 1, (number, 1), "uniform") < self.label_noise
            labels = tf.where(swap, 1 - labels, labels)
        return labels

    def update_discriminator(self, images, real, stream):
        """One update of the discriminator by a half-batch that is all real or all generated.

        Separate, since batch normalization would mix the two. The generator stays as it is.
        """
        import tensorflow as tf

        labels = self.labels(real, tf.shape(images)[0], stream)
        variables = self.discriminator.trainable_variables
        with tf.GradientTape() as tape:
            opinion = self.discriminator(images, training=True)
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(labels, opinion))
        self.d_optimizer.apply(tape.gradient(loss, variables), variables)
        self.trackers["d_loss"].update_state(loss)
        self.trackers["d_accuracy"].update_state(tf.cast((opinion > 0.5) == real, "float32"))

    def update_generator(self, number):
        """One update of the generator, through the discriminator, which stays as it is.

        Its batch normalization sees this batch alone, as in its own updates, but its running
        statistics are put back. With `trainable = False` Keras 3 would let it use the running
        statistics here, in which real and generated images are mixed: such a generator learns to
        please a discriminator that is never asked (chapter13/README.md shows what comes of it).
        """
        import tensorflow as tf

        noise = self.random(3, (number, self.generator.input_shape[1]))
        variables = self.generator.trainable_variables
        with tf.GradientTape() as tape:
            opinion = without_traces(self.discriminator, self.generator(noise, training=True))
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(tf.ones_like(opinion), opinion))
        self.g_optimizer.apply(tape.gradient(loss, variables), variables)
        self.trackers["g_loss"].update_state(loss)

    def train_step(self, data):
        """Discriminator by real images, discriminator by generated ones, then the generator.

        Args:
            data: a tuple of one, the real images: float32 (half a batch, *image_shape), -1 to 1.
        """
        import tensorflow as tf

        (real_images,) = data
        half = tf.shape(real_images)[0]
        noise = self.random(0, (half, self.generator.input_shape[1]))
        fake_images = self.generator(noise, training=False)
        self.update_discriminator(real_images, True, stream=10)
        self.update_discriminator(fake_images, False, stream=20)
        self.update_generator(2 * half)
        return {name: tracker.result() for name, tracker in self.trackers.items()}


class HalfBatches(keras.utils.PyDataset):
    """Half-batches of real images, drawn anew each epoch without putting any back.

    An epoch has as many of them as the set has batches, as in the book: it sees half of the images.
    """

    def __init__(self, images, batch_size, seed, epoch=0):
        super().__init__()
        self.images, self.half, self.seed, self.epoch = images, batch_size // 2, seed, epoch
        self.number = max(len(images) // batch_size, 1)
        self.shuffle()

    def shuffle(self):
        """Deal out the images of this epoch."""
        self.rows = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.images))

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return (scale(self.images[self.rows[index * self.half : (index + 1) * self.half]]),)

    def on_epoch_end(self):
        self.epoch += 1
        self.shuffle()


def make_grid(images, columns=5, zoom=3):
    """Generated images (n, side, side, channels), -1 to 1, as one PIL image."""
    pixels = np.clip(np.asarray(images) * 127.5 + 127.5, 0, 255).astype("uint8")
    pixels = np.pad(pixels, [(0, 0), (2, 2), (2, 2), (0, 0)], constant_values=255)
    missing = [(0, -len(pixels) % columns), (0, 0), (0, 0), (0, 0)]  # white at the end
    pixels = np.pad(pixels, missing, constant_values=255)
    grid = np.vstack([np.hstack(row) for row in np.split(pixels, len(pixels) // columns)])
    grid = grid[..., 0] if grid.shape[2] == 1 else grid
    return Image.fromarray(grid.repeat(zoom, axis=0).repeat(zoom, axis=1))


def save_imgs(generator, noise, path):
    """Write the generator's images of `noise` (25, NOISE_DIM) as a grid of 5 x 5."""
    make_grid(generator(noise, training=False)).save(path)


def save_gif(grids, path, frames=60, milliseconds=120):
    """Write pictures as an animated GIF, at most `frames` of them, evenly chosen."""
    chosen = np.unique(np.linspace(0, len(grids) - 1, min(frames, len(grids))).round().astype(int))
    pictures = [grids[i].convert("P", palette=Image.Palette.ADAPTIVE, colors=32) for i in chosen]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)


class Watch(keras.callbacks.Callback):
    """Grids from the same noise, mean losses since the last grid, and the generator at moments.

    Also stops the training when a loss is no number: what was saved before that stays.
    """

    def __init__(self, run_dir, every, epoch=0, steps_per_epoch=1):
        super().__init__()
        self.run_dir, self.every, self.step = run_dir, every, epoch * steps_per_epoch
        # The same for all runs, so that their grids can be compared.
        self.noise = np.random.default_rng(0).normal(size=(25, NOISE_DIM)).astype("float32")
        for folder in ("images", "moments"):
            (run_dir / folder).mkdir(exist_ok=True)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not all(np.isfinite(value) for value in logs.values()):
            raise FloatingPointError(
                f"step {self.step}: a loss is no number any more ({logs}); the networks of the "
                "last finished epoch are kept. A lower learning rate may help"
            )
        if self.step in MOMENTS:
            self.save_moment()
        if self.step == 1 or self.step % self.every == 0:
            save_imgs(
                self.model.generator, self.noise, self.run_dir / f"images/step_{self.step:06}.png"
            )
            path = self.run_dir / "losses.csv"
            row = pd.DataFrame([{"step": self.step, **logs}])
            row.to_csv(path, mode="a", header=not path.exists(), index=False)
            self.model.reset_metrics()

    def on_epoch_end(self, epoch, logs=None):
        self.save_moment()
        for network in (self.model.generator, self.model.discriminator):
            fresh = self.run_dir / f"new_{network.name}.keras"
            network.save(fresh)
            fresh.replace(self.run_dir / f"{network.name}.keras")  # a kill leaves the old or this

    def save_moment(self):
        """Keep the generator as it is now, for evaluate_gan.py."""
        self.model.generator.save(self.run_dir / f"moments/step_{self.step:06}.keras")


def create_callbacks(run_dir, every, epoch=0, steps_per_epoch=1):
    """Callbacks that watch the training, and let a killed run go on after its last epoch."""
    return [
        Watch(run_dir, every, epoch, steps_per_epoch),
        keras.callbacks.TensorBoard(run_dir / "tb", update_freq=every),
        # Last, so that an epoch counts as finished only when everything else is on disk. Both
        # networks and both optimizers are in it.
        keras.callbacks.BackupAndRestore(run_dir / "backup", double_checkpoint=True),
    ]


def finished_epochs(backup_dir):
    """Number of epochs that the backup of `BackupAndRestore` in `backup_dir` holds; 0 without one.

    A kill while Keras writes that number leaves an empty file. Then the backup of the epoch before,
    which `double_checkpoint` keeps, takes its place.
    """
    for suffix in ("", ".bkp"):
        try:
            text = (backup_dir / f"training_metadata.json{suffix}").read_text()
            epochs = json.loads(text)["epoch"]
        except (OSError, ValueError):
            continue
        if suffix:
            for name in ("latest.weights.h5", "training_metadata.json"):
                shutil.copy(backup_dir / f"{name}.bkp", backup_dir / name)
        return epochs
    return 0


def interrupted_run(run_dir, settings):
    """Epochs that an unfinished training of the same settings in `run_dir` has done, or 0.

    A backup of other data or another seed is set aside: going on from it would mix two runs.
    """
    settings_path = run_dir / "settings.json"
    epochs = finished_epochs(run_dir / "backup")
    if epochs:
        if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
            print(f"Resuming the interrupted run in {run_dir} after epoch {epochs}.")
            return epochs
        print(f"{run_dir} holds an interrupted run with other settings; starting afresh.")
    for folder in ("backup", "tb", "images", "moments"):
        shutil.rmtree(run_dir / folder, ignore_errors=True)
    for name in ("generator.keras", "discriminator.keras", "losses.csv", "metrics.json"):
        (run_dir / name).unlink(missing_ok=True)  # of the settings about to be replaced
    settings_path.write_text(json.dumps(settings, indent=2))
    return 0


def plot_losses(losses, path):
    """Both losses and the discriminator's accuracy by step, as a picture."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    axes[0].plot(losses["step"], losses["d_loss"], label="discriminator")
    axes[0].plot(losses["step"], losses["g_loss"], label="generator")
    axes[0].set(xlabel="step", ylabel="loss")
    axes[0].legend()
    axes[1].plot(losses["step"], losses["d_accuracy"])
    axes[1].axhline(0.5, color="grey", linestyle=":")
    axes[1].set(xlabel="step", ylabel="discriminator: share judged rightly", ylim=(0, 1.02))
    for ax in axes:
        ax.grid(alpha=0.3)
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def train(gan, images, args, settings):
    """Fit both networks, going on from an interrupted run.

    Returns:
        (losses, seconds): DataFrame with a row for each grid; time spent in `fit`, None when part
        of the training was done before an interruption.
    """
    args.run_dir.mkdir(parents=True, exist_ok=True)
    done = interrupted_run(args.run_dir, settings)
    batches = HalfBatches(images, args.batch_size, args.seed, done)
    losses_path = args.run_dir / "losses.csv"
    if done and losses_path.exists():  # what came after the backup happens again
        losses = pd.read_csv(losses_path)
        losses[losses["step"] <= done * len(batches)].to_csv(losses_path, index=False)
    start = time.perf_counter()
    gan.fit(
        batches,
        epochs=args.epochs,
        shuffle=False,  # HalfBatches shuffles
        callbacks=create_callbacks(args.run_dir, args.save_every, done, len(batches)),
    )
    return pd.read_csv(losses_path), None if done else round(time.perf_counter() - start, 1)


def parse_arguments(description, name, epochs, arguments=None):
    """The command line of this script and of gan_cifar10.py."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", metavar="SOURCE", help='"sample", an .npz file or a folder of images')
    add("--epochs", type=positive, default=epochs, help=f"default: {epochs}")
    add("--batch-size", type=positive, default=32, help="half real, half generated; default: 32")
    add("--save-every", type=positive, default=50, help="batches between grids (default: 50)")
    add("--learning-rate", type=float, default=0.0002, help="of both networks; default: 0.0002")
    add("--soft-labels", action="store_true", help="0.7 to 1 and 0 to 0.3 instead of 1 and 0")
    add("--label-noise", type=share, default=0.0, help="share of labels swapped (default: 0)")
    add("--dropout-generator", type=share, default=0.0, help="dropout rate (default: 0)")
    add("--run-dir", type=Path, help=f"default: runs/chapter13/{name}")
    add("--seed", type=int, default=1, help="default: 1")
    args = parser.parse_args(arguments)
    if args.batch_size < 4 or args.batch_size % 2:
        parser.error("--batch-size must be even, and 4 or more")
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        args.run_dir = RUNS_DIR / (f"{name}_sample" if args.data == "sample" else name)
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def share(text):
    """A number from 0 to below 1, for argparse."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return number


def build_gan(image_shape, args):
    """Both networks, ready to train as the command line says."""
    gan = GAN(
        build_generator(image_shape, dropout=args.dropout_generator),
        build_discriminator(image_shape),
        args.seed,
        args.soft_labels,
        args.label_noise,
    )
    gan.compile(create_optimizer(args.learning_rate), create_optimizer(args.learning_rate))
    return gan


def run(args, load_data, script, name):
    """Load, train, and write what came out; shared with gan_cifar10.py.

    Args:
        load_data: function of --data. script, name: for metrics.json and messages.
    """
    keras.utils.set_random_seed(args.seed)
    device = keras.distribution.list_devices()[0]
    device += f" ({os.cpu_count()} cores)" if device.startswith("cpu") else ""
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, device: {device}")
    try:
        if keras.backend.backend() != "tensorflow":
            raise ValueError("this script needs the TensorFlow backend: unset KERAS_BACKEND")
        data = load_data(args.data)
        if len(data["train_X"]) < args.batch_size:
            raise ValueError(f"--batch-size {args.batch_size} is more than all images")
        source = Path(args.data).name if args.data else name
        source = f"sample (a stand-in or part of {name})" if args.data == "sample" else source
        print(f"Data: {source}: {len(data['train_X']):,} images {data['train_X'].shape[1:]}")
        gan = build_gan(data["train_X"].shape[1:], args)
        gan.generator.summary()
        gan.discriminator.summary()
        settings = {
            "data": args.data if args.data in (None, "sample") else str(Path(args.data).resolve()),
            **{
                key: value
                for key, value in vars(args).items()
                if key not in ("data", "epochs", "run_dir")
            },
        }
        losses, seconds = train(gan, data["train_X"], args, settings)
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_losses(losses, args.run_dir / "losses.png")
    grids = [Image.open(path) for path in sorted((args.run_dir / "images").glob("*.png"))]
    save_gif(grids, args.run_dir / "training.gif")
    last = losses.tail(5).mean()
    metrics = {
        "script": script,
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": importlib.metadata.version("tensorflow"),
        },
        "device": device,
        "epochs": args.epochs,
        "steps": args.epochs * max(len(data["train_X"]) // args.batch_size, 1),
        "seconds": seconds,
        "parameters": {
            "generator": gan.generator.count_params(),
            "discriminator": gan.discriminator.count_params(),
        },
        "last": {key: float(last[key]) for key in ("d_loss", "d_accuracy", "g_loss")},
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(
        f"Last {5 * args.save_every} batches: discriminator loss {last['d_loss']:.3f}, right "
        f"{last['d_accuracy']:.1%} of the time; generator loss {last['g_loss']:.3f}"
    )
    print(f"Networks, grids, training.gif and metrics are in {args.run_dir}")
    print(f"Judge it: python chapter13/evaluate_gan.py --run-dir {args.run_dir}")


def main():
    run(parse_arguments(__doc__, "gan_mnist", epochs=4), load_data, SCRIPT, "MNIST")


if __name__ == "__main__":
    main()
