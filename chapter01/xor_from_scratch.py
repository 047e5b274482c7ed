"""A neural network from scratch, in NumPy alone: neurons, activations, costs, back propagation.

Book: chapter 1, "The deep neural network architectures". The data is the exclusive OR: four rows,
two inputs, one output. A linear neuron cannot model it and a network of two layers can.

    python chapter01/xor_from_scratch.py    # 10 s on 2 CPU cores, half of it Keras's import

Expect: the linear and the logistic neuron stay at an MSE of 0.25 and 50-75 % accuracy; a network
with four tanh neurons solves XOR for every one of ten seeds; gradients agree with central
differences and with Keras to 1e-6. Keras is only used for that last comparison.
Notation: m rows; z is what a neuron's linear function gives, a = f(z) what its activation gives.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # write files, open no window
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

RUNS_DIR = Path(__file__).resolve().parent.parent / "runs" / "chapter01"
XOR_X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
XOR_Y = np.array([[0], [1], [1], [0]], dtype=float)


def linear_function(a, weights, bias):
    """z = a·θ + b for one layer: (m, n_in), (n_in, n_out), (n_out,) → (m, n_out)."""
    return a @ weights + bias


def sigmoid(z):
    """1 / (1 + e^-z), written so that no exponent is positive: e^800 would overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def softmax(z):
    """e^z over its sum, by row. Subtracting the largest z changes nothing and keeps e^z finite."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_derivative(z):
    """Every output depends on every input: the Jacobian diag(a) - a aᵀ, (m, n) → (m, n, n)."""
    a = softmax(z)
    return a[:, :, None] * np.eye(z.shape[-1]) - a[:, :, None] * a[:, None, :]


# name → (function, derivative), both of z and element by element. ReLU has no derivative at
# exactly 0; like every framework we take 0 there. Leaky ReLU has the same kink: what it mends is
# the neuron whose z is negative for every row, which under ReLU gets no gradient ever again.
ACTIVATIONS = {
    "linear": (lambda z: z, np.ones_like),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.1 * z), lambda z: np.where(z > 0, 1.0, 0.1)),
}


def mse_cost(y, predicted):
    """J = 1/(2m) Σ(ŷ - y)². Keras's "mse" has no 1/2: it is twice this for a single output."""
    return float(np.sum((predicted - y) ** 2) / (2 * len(y)))


def cross_entropy_cost(y, predicted):
    """Mean of -log(probability given to the true class). One column: y is 0 or 1; more: one-hot."""
    p = np.clip(predicted, 1e-12, 1 - 1e-12)  # log(0) is -inf
    log_likelihood = y * np.log(p) + ((1 - y) * np.log(1 - p) if y.shape[1] == 1 else 0)
    return float(-np.sum(log_likelihood) / len(y))


COSTS = {"mse": mse_cost, "cross_entropy": cross_entropy_cost}


def init_layers(sizes, rng):
    """[(weights, bias), …] for layer sizes such as (2, 4, 1), weights by Glorot's uniform rule."""
    layers = []
    for n_in, n_out in zip(sizes, sizes[1:], strict=False):
        limit = np.sqrt(6 / (n_in + n_out))
        layers.append((rng.uniform(-limit, limit, (n_in, n_out)), np.zeros(n_out)))
    return layers


def count_parameters(sizes, biases=True):
    """Learnable parameters of a fully connected network: (100, 30, 30, 1) → 3,991.

    The book says 3,930: those are the weights; the 30 + 30 + 1 biases are learned as well.
    """
    return sum(n_out * (n_in + biases) for n_in, n_out in zip(sizes, sizes[1:], strict=False))


def collapse_linear_layers(layers):
    """The one layer that equals a stack of linear ones: (x·A + a)·B + b = x·(A·B) + (a·B + b)."""
    weights, bias = layers[0]
    for next_weights, next_bias in layers[1:]:
        weights, bias = weights @ next_weights, bias @ next_weights + next_bias
    return weights, bias


def forward(layers, activations, X):
    """Forward propagation: the prediction (m, n_out), and each layer's (input, z) for backward."""
    a, cache = X, []
    for (weights, bias), name in zip(layers, activations, strict=True):
        z = linear_function(a, weights, bias)
        cache.append((a, z))
        a = softmax(z) if name == "softmax" else ACTIVATIONS[name][0](z)
    return a, cache


def backward(layers, activations, cache, predicted, y, cost):
    """Back propagation: ∂J/∂θ of each layer, in the shapes of `layers`, found from last to first.

    δ is ∂J/∂z. For cross-entropy behind a sigmoid or a softmax the chain rule cancels to
    (ŷ - y)/m, so that an output that is wrong and sure of it still learns; under MSE it does not.
    Raises ValueError for cross-entropy behind anything else, and for softmax anywhere else.
    """
    output = activations[-1]
    if output not in (["sigmoid", "softmax"] if cost == "cross_entropy" else ACTIVATIONS):
        raise ValueError(f"no gradient for the cost {cost!r} behind the output {output!r}")
    delta = (predicted - y) / len(y)
    if cost == "mse":
        delta = delta * ACTIVATIONS[output][1](cache[-1][1])
    gradients = []
    for i in reversed(range(len(layers))):
        gradients.insert(0, (cache[i][0].T @ delta, delta.sum(axis=0)))
        if i > 0:
            delta = (delta @ layers[i][0].T) * ACTIVATIONS[activations[i - 1]][1](cache[i - 1][1])
    return gradients


def numeric_gradients(layers, activations, X, y, cost, step=1e-6):
    """∂J/∂θ by central differences, (J(θ + h) - J(θ - h)) / 2h: slow, and hard to get wrong."""
    gradients = [tuple(np.zeros_like(p) for p in layer) for layer in layers]
    for layer, gradient in zip(layers, gradients, strict=True):
        for parameter, slot in zip(layer, gradient, strict=True):
            for index in np.ndindex(parameter.shape):
                before, costs = parameter[index], []
                for moved in (before + step, before - step):
                    parameter[index] = moved
                    costs.append(COSTS[cost](y, forward(layers, activations, X)[0]))
                parameter[index] = before
                slot[index] = (costs[0] - costs[1]) / (2 * step)
    return gradients


def keras_cost_and_gradients(layers, activations, X, y, cost):
    """The same network in Keras with the same weights: (cost, gradients in the shapes of `layers`).

    In float32, so agreement is to about 1e-7. Activations: those that Keras knows by the same name.
    Raises NotImplementedError on a backend other than tensorflow and jax.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # fewer start-up notes from TensorFlow
    import keras

    inputs = x = keras.Input((X.shape[1],))
    for (_, bias), name in zip(layers, activations, strict=True):
        x = keras.layers.Dense(len(bias), activation=name)(x)
    model = keras.Model(inputs, x)
    model.set_weights([parameter for layer in layers for parameter in layer])
    variables = [v.value for v in model.trainable_variables]
    crossentropy = "binary_crossentropy" if y.shape[1] == 1 else "categorical_crossentropy"
    loss = keras.losses.get("mean_squared_error" if cost == "mse" else crossentropy)
    scale = y.shape[1] / 2 if cost == "mse" else 1  # Keras averages over outputs, without our 1/2
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = scale * keras.ops.mean(loss(y, model(X)))
        flat = tape.gradient(value, variables)
    elif keras.backend.backend() == "jax":
        import jax

        def cost_of(values):
            return scale * keras.ops.mean(loss(y, model.stateless_call(values, [], X)[0]))

        value, flat = jax.value_and_grad(cost_of)(variables)
    else:
        raise NotImplementedError(f"no comparison written for {keras.backend.backend()}")
    flat = [np.asarray(gradient) for gradient in flat]
    return float(value), list(zip(flat[::2], flat[1::2], strict=True))


def largest_difference(gradients, others):
    """The largest absolute difference between two lists of (weights, bias) gradients."""
    pairs = zip(gradients, others, strict=True)
    return max(float(np.abs(g - o).max()) for a, b in pairs for g, o in zip(a, b, strict=True))


def train(layers, activations, X, y, cost, learning_rate, epochs, batch_size, rng):
    """Gradient descent, θ ← θ - α ∂J/∂θ, changing `layers`; returns the cost after each epoch.

    batch_size = len(X) is batch gradient descent, 1 is stochastic, anything between mini-batch.
    """
    history = []
    for _ in range(epochs):
        order = rng.permutation(len(X))
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            predicted, cache = forward(layers, activations, X[rows])
            gradients = backward(layers, activations, cache, predicted, y[rows], cost)
            for layer, gradient in zip(layers, gradients, strict=True):
                for parameter, slope in zip(layer, gradient, strict=True):
                    parameter -= learning_rate * slope
        history.append(COSTS[cost](y, forward(layers, activations, X)[0]))
    return history


def evaluate(layers, activations, X, y):
    """{"accuracy": share of rows on the right side of 0.5, "mse": mean squared error, no 1/2}."""
    predicted = forward(layers, activations, X)[0]
    right = (predicted > 0.5) == (y > 0.5)
    return {"accuracy": float(right.mean()), "mse": float(np.mean((predicted - y) ** 2))}


def plot_activations(path):
    """Each activation and its derivative over z from -5 to 5; softmax for three inputs."""
    z = np.linspace(-5, 5, 501)
    figure, axes = plt.subplots(2, 3, figsize=(9, 5.2), sharex=True, layout="constrained")
    for axis, (name, (f, derivative)) in zip(axes.flat, ACTIVATIONS.items(), strict=False):
        axis.plot(z, f(z), label="f(z)")
        axis.plot(z, derivative(z), "--", label="f′(z)")
        axis.set(title=name, ylim=(-1.3, 1.6))
    logits = np.stack([z, np.zeros_like(z), np.full_like(z, -1)], axis=1)
    axes[1, 2].plot(z, softmax(logits), label=["a₁", "a₂", "a₃"])
    axes[1, 2].set(title="softmax of (z, 0, -1)", ylim=(-0.1, 1.1))
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right" if axis in axes[0] else "upper left")
    axes[1, 2].legend(fontsize=8, loc="center right")
    for axis in axes[1]:
        axis.set_xlabel("z")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def plot_boundaries(path, networks):
    """The prediction over the plane for each {title: (layers, activations)}, line at 0.5."""
    steps = np.linspace(-0.5, 1.5, 201)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    figure, axes = plt.subplots(
        1, len(networks), figsize=(4.2 * len(networks), 4), layout="constrained"
    )
    for axis, (title, (layers, activations)) in zip(axes, networks.items(), strict=True):
        surface = forward(layers, activations, grid)[0].reshape(len(steps), len(steps))
        image = axis.contourf(steps, steps, surface, np.linspace(0, 1, 21), cmap="coolwarm")
        axis.contour(steps, steps, surface, [0.5], colors="black")
        for value, marker in ((0, "o"), (1, "^")):
            points = XOR_X[XOR_Y[:, 0] == value]
            axis.plot(*points.T, marker, color="white", markeredgecolor="black", markersize=11)
        accuracy = evaluate(layers, activations, XOR_X, XOR_Y)["accuracy"]
        axis.set(title=f"{title}: {accuracy:.0%} right", xlabel="x₁", ylabel="x₂", aspect="equal")
    label = "prediction (circle: 0, triangle: 1)"
    figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.25, 0.5, 0.75, 1], label=label)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def check_gradients(seed):
    """The largest error of back propagation: {"central differences": …, "Keras": … or None}."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(8, 3)), rng.integers(0, 2, (8, 1)).astype(float)
    worst = {"central differences": 0.0, "Keras": 0.0}
    for hidden, output, cost in (
        ("tanh", "sigmoid", "cross_entropy"),
        ("sigmoid", "sigmoid", "mse"),
        ("relu", "linear", "mse"),
    ):
        layers, activations = init_layers((3, 5, 4, 1), rng), [hidden, hidden, output]
        predicted, cache = forward(layers, activations, X)
        ours = backward(layers, activations, cache, predicted, y, cost)
        numeric = numeric_gradients(layers, activations, X, y, cost)
        error = largest_difference(ours, numeric)
        worst["central differences"] = max(worst["central differences"], error)
        try:
            value, theirs = keras_cost_and_gradients(layers, activations, X, y, cost)
        except (ImportError, NotImplementedError) as reason:
            print(f"Keras comparison skipped: {reason}")
            worst["Keras"] = None
            break
        error = max(largest_difference(ours, theirs), abs(value - COSTS[cost](y, predicted)))
        worst["Keras"] = max(worst["Keras"], error)
    return worst


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.error = fail

    def at_least(minimum):
        def convert(text):
            if not text.isdecimal() or int(text) < minimum:
                raise argparse.ArgumentTypeError(f"{text} is not a whole number >= {minimum}")
            return int(text)

        return convert

    run_dir = RUNS_DIR / "xor_from_scratch"
    parser.add_argument("--epochs", type=at_least(1), default=1000, help="passes over the rows")
    parser.add_argument("--seed", type=at_least(0), default=0, help="the first of ten seeds")
    parser.add_argument(
        "--run-dir", type=Path, default=run_dir, help="default: runs/chapter01/xor_from_scratch"
    )
    return parser.parse_args()


def fail(message):
    """One line on stderr and exit status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    args, started = parse_arguments(), time.time()
    try:
        args.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        fail(f"--run-dir cannot be made: {reason}")
    print("device: CPU (NumPy)")

    # Each neuron alone, then two layers with nothing between them: all three are linear.
    trained = {}
    for name, sizes, activations, cost in (
        ("linear_neuron", (2, 1), ["linear"], "mse"),
        ("logistic_neuron", (2, 1), ["sigmoid"], "cross_entropy"),
        ("two_linear_layers", (2, 4, 1), ["linear", "sigmoid"], "cross_entropy"),
        ("network", (2, 4, 1), ["tanh", "sigmoid"], "cross_entropy"),
    ):
        rng = np.random.default_rng(args.seed)
        layers = init_layers(sizes, rng)
        train(layers, activations, XOR_X, XOR_Y, cost, 0.3, args.epochs, len(XOR_X), rng)
        trained[name] = layers, activations
    scores = {name: evaluate(*network, XOR_X, XOR_Y) for name, network in trained.items()}
    for name, metrics in scores.items():
        print(f"{name:18} accuracy {metrics['accuracy']:4.0%}   MSE {metrics['mse']:.4f}")

    solved = {}
    ways = {"batch": 4, "mini-batch of 2": 2, "stochastic": 1}
    runs = [(hidden, way) for hidden in (2, 4) for way in ways]
    for hidden, way in tqdm(runs, desc="ten seeds each", leave=False):
        solved[f"{hidden} hidden, {way}"] = 0
        for seed in range(args.seed, args.seed + 10):
            rng = np.random.default_rng(seed)
            layers, activations = init_layers((2, hidden, 1), rng), ["tanh", "sigmoid"]
            train(
                layers, activations, XOR_X, XOR_Y, "cross_entropy", 0.3, args.epochs, ways[way], rng
            )
            right = evaluate(layers, activations, XOR_X, XOR_Y)["accuracy"] == 1
            solved[f"{hidden} hidden, {way}"] += int(right)
    for name, count in solved.items():
        print(f"{name:26} solved by {count:2} of 10 seeds")

    sizes = (100, 30, 30, 1)
    print(f"100-30-30-1: {count_parameters(sizes):,} parameters", end="")
    print(f", {count_parameters(sizes, biases=False):,} without the biases (the book's number)")
    stack, rng = init_layers(sizes, np.random.default_rng(args.seed)), np.random.default_rng(1)
    X = rng.normal(size=(5, 100))
    difference = forward(stack, ["linear"] * 3, X)[0] - linear_function(
        X, *collapse_linear_layers(stack)
    )
    print(f"100-30-30-1, all linear, against one 100-1 layer: {np.abs(difference).max():.0e} apart")
    errors = check_gradients(args.seed)
    for name, error in errors.items():
        if error is not None:
            print(f"back propagation against {name}: largest difference {error:.1e}")

    plot_activations(args.run_dir / "activations.png")
    titles = {"logistic_neuron": "Logistic neuron", "network": "4 tanh, 1 sigmoid"}
    plot_boundaries(args.run_dir / "xor.png", {t: trained[n] for n, t in titles.items()})
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if keras := sys.modules.get("keras"):  # imported by the comparison, unless not installed
        backend = keras.backend.backend()
        versions |= {"keras": keras.__version__, "backend": backend}
        versions["backend_version"] = sys.modules[backend].__version__
    metrics = {
        "script": "chapter01/xor_from_scratch.py",
        "data": "exclusive OR, 4 rows",
        "seed": args.seed,
        "versions": versions,
        "device": "CPU",
        "epochs": args.epochs,
        "best_epoch": None,
        "seconds": round(time.time() - started, 1),
        "parameters": count_parameters((2, 4, 1)),
        "train": scores.pop("network"),
        "val": None,
        "test": None,  # the four rows are all there is
        "baselines": scores,
        "solved_of_10_seeds": solved,
        "gradient_check": errors,
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for name in ("metrics.json", "activations.png", "xor.png"):
        print(f"wrote {args.run_dir / name}")


if __name__ == "__main__":
    main()
