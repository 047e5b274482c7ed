"""Make a GAN fail on purpose, in the two ways that the chapter describes, and mend it.

Book: chapter 13, "How GANs can fail".

    python chapter13/how_gans_fail.py                      # on MNIST
    python chapter13/how_gans_fail.py --data sample        # 5,000 of its digits: too few steps

Three trainings of the same networks on the same images from the same noise; only the learning rates
differ. A slow discriminator cannot object when a fast generator always shows it the same: mode
collapse. A fast discriminator is soon certain, and the loss that reaches a slow generator hardly
changes with the image any more. With equal rates neither wins. What to look for: classes.png and
the verdicts, which follow from the measures of evaluate_gan.py alone.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from evaluate_gan import SAMPLES, Judge, generate_images, load_classifier
from gan_mnist import (
    GAN,
    RUNS_DIR,
    HalfBatches,
    build_discriminator,
    build_generator,
    create_optimizer,
    load_data,
    make_grid,
    plt,
    positive,
    scale,
)

TRAININGS = {  # learning rates of generator and discriminator
    "collapse": (0.004, 0.000002),
    "overpowered": (0.000002, 0.001),
    "mended": (0.0002, 0.0002),
}
CERTAIN = 0.99  # accuracy from which the discriminator leaves the generator nothing to learn from


class Recent(keras.callbacks.Callback):
    """Mean discriminator accuracy and generator loss of the last `number` batches."""

    def __init__(self, number=100):
        super().__init__()
        self.number, self.logs = number, []

    def on_train_batch_end(self, batch, logs=None):
        self.logs = [*self.logs, logs][-self.number :]
        self.model.reset_metrics()

    def mean(self, name):
        return float(np.mean([logs[name] for logs in self.logs]))


def train(images, rates, steps, seed):
    """One training of `steps` batches of 32, at most as many as there are images for.

    Returns:
        the generator, and the discriminator's accuracy at the end.
    """
    keras.utils.set_random_seed(seed)
    shape = images.shape[1:]
    gan = GAN(build_generator(shape), build_discriminator(shape), seed)
    gan.compile(*map(create_optimizer, rates))
    recent = Recent()
    batches = HalfBatches(images, 32, seed)
    batches.number = min(steps, len(images) // batches.half)
    gan.fit(batches, shuffle=False, callbacks=[recent])
    return gan.generator, recent.mean("d_accuracy")


def judge_training(measures, discriminator_accuracy):
    """What the figures say: "mode collapse", "discriminator too strong", both, or "healthy"."""
    problems = []
    if measures["collapsed"]:
        problems.append("mode collapse")
    if discriminator_accuracy > CERTAIN:
        problems.append("discriminator too strong")
    return " and ".join(problems) or "healthy"


def plot_classes(results, path):
    """Share of each class among the samples of each training, as a picture."""
    fig, axes = plt.subplots(1, len(results), figsize=(4 * len(results), 3), sharey=True)
    for ax, (name, result) in zip(axes, results.items(), strict=True):
        ax.bar(range(len(result["histogram"])), result["histogram"])
        ax.set(title=f"{name}:\n{result['verdict']}", xlabel="class")
        ax.title.set_size(9)
        ax.set_xticks(range(len(result["histogram"])))
    axes[0].set_ylabel(f"share of {SAMPLES:,} samples")
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", or an .npz file with labels')
    parser.add_argument("--steps", type=positive, default=1000, help="each (default: 1000)")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter13/how_gans_fail")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    args = parser.parse_args()
    if args.run_dir is None:
        args.run_dir = RUNS_DIR / ("how_gans_fail" + "_sample" * (args.data == "sample"))
    return args


def main():
    args = parse_arguments()
    try:
        if keras.backend.backend() != "tensorflow":
            raise ValueError("this script needs the TensorFlow backend: unset KERAS_BACKEND")
        data = load_data(args.data)
        missing = [key for key in ("train_y", "test_X", "test_y") if key not in data]
        if missing:
            raise ValueError(f"the images have no {', '.join(missing)}: nothing to judge by")
        args.run_dir.mkdir(parents=True, exist_ok=True)
        classifier, accuracy = load_classifier(data, args.run_dir / "classifier.keras", 3)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    judge = Judge(classifier, scale(data["test_X"][: 2 * SAMPLES]))
    results = {}
    for name, rates in TRAININGS.items():
        print(f"{name}: learning rates {rates[0]} (generator) and {rates[1]} (discriminator)")
        generator, d_accuracy = train(data["train_X"], rates, args.steps, args.seed)
        images = generate_images(generator, SAMPLES, args.seed)
        make_grid(images[:25]).save(args.run_dir / f"{name}.png")
        measures = judge.measure(images)
        results[name] = {
            "verdict": judge_training(measures, d_accuracy),
            "discriminator_accuracy": d_accuracy,
            **measures,
        }
    table = pd.DataFrame(results).T[
        [
            "verdict",
            "discriminator_accuracy",
            "classes",
            "entropy",
            "mean_top_probability",
            "frechet",
        ]
    ]
    print(table.to_string(float_format="{:.3f}".format))
    plot_classes(results, args.run_dir / "classes.png")
    metrics = {
        "script": "chapter13/how_gans_fail.py",
        "data": Path(args.data).name if args.data else "MNIST",
        "seed": args.seed,
        "steps": args.steps,
        "classifier_accuracy": accuracy,
        "frechet_floor": judge.floor,
        "trainings": results,
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Grids, classes.png and metrics are in {args.run_dir}")


if __name__ == "__main__":
    main()
