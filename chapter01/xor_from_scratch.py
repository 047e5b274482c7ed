"""A neural network from scratch, in NumPy alone: neurons, activations, costs, back propagation.

Book: chapter 1, "The deep neural network architectures". The data is the exclusive OR: four rows,
two inputs, one output. A linear neuron cannot model it and a network of two layers can.

    python chapter01/xor_from_scratch.py

Expect: the linear and the logistic neuron stay at an MSE of 0.25 and 50-75 % accuracy; a network
with four tanh neurons solves XOR for every one of ten seeds; gradients agree with central
differences to 1e-9 (and with Keras: a test compares them).
Notation: m rows; z is what a neuron's linear function gives, a = f(z) what its activation gives.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

XOR_X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
XOR_Y = np.array([[0], [1], [1], [0]], dtype=float)


def linear_function(a, weights, bias):
    """z = a·θ + b for one layer: (m, n_in), (n_in, n_out), (n_out,) to (m, n_out)."""
    return a @ weights + bias


def sigmoid(z):
    """1 / (1 + e^-z), written so that no exponent is positive: e^800 would overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def softmax(z):
    """e^z over its sum, by row. Subtracting the largest z changes nothing and keeps e^z finite."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# name: (function, derivative), both of z and element by element. ReLU has no derivative at
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
    """Learnable parameters of a fully connected network: (100, 30, 30, 1) has 3,991.

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
    *hidden, output = activations
    allowed = ["sigmoid", "softmax"] if cost == "cross_entropy" else ACTIVATIONS
    if output not in allowed or "softmax" in hidden:
        raise ValueError(f"no gradient for the cost {cost!r} behind {activations}")
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


def train_on_xor(sizes, activations, cost, seed, batch_size=4, epochs=1000):
    """The layers of a network trained on XOR at learning rate 0.3, and its {accuracy, mse}."""
    rng = np.random.default_rng(seed)
    layers = init_layers(sizes, rng)
    train(layers, activations, XOR_X, XOR_Y, cost, 0.3, epochs, batch_size, rng)
    return layers, evaluate(layers, activations, XOR_X, XOR_Y)


def plot_activations(path):
    """Each activation and its derivative over z from -5 to 5; softmax for three inputs."""
    z = np.linspace(-5, 5, 501)
    fig, axes = plt.subplots(2, 3, figsize=(9, 5.2), sharex=True, layout="constrained")
    for ax, (name, (f, derivative)) in zip(axes.flat, ACTIVATIONS.items(), strict=False):
        ax.plot(z, f(z), label="f(z)")
        ax.plot(z, derivative(z), "--", label="f′(z)")
        ax.set(title=name, xlabel="z", ylim=(-1.3, 1.6))
    logits = np.stack([z, np.zeros_like(z), np.full_like(z, -1)], axis=1)
    axes[1, 2].plot(z, softmax(logits), label=["a₁", "a₂", "a₃"])
    axes[1, 2].set(title="softmax of (z, 0, -1)", xlabel="z", ylim=(-0.1, 1.1))
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    fig.savefig(path, dpi=80)


def plot_boundaries(path, networks):
    """The prediction over the plane for each {title: (layers, activations)}, line at 0.5."""
    steps = np.linspace(-0.5, 1.5, 201)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    fig, axes = plt.subplots(1, len(networks), figsize=(8.4, 4), layout="constrained")
    for ax, (title, (layers, activations)) in zip(axes, networks.items(), strict=True):
        surface = forward(layers, activations, grid)[0].reshape(len(steps), len(steps))
        image = ax.contourf(steps, steps, surface, np.linspace(0, 1, 21), cmap="coolwarm")
        ax.contour(steps, steps, surface, [0.5], colors="black")
        for value, marker in ((0, "o"), (1, "^")):
            points = XOR_X[XOR_Y[:, 0] == value]
            ax.plot(*points.T, marker, color="white", markeredgecolor="black", markersize=11)
        ax.set(title=title, xlabel="x₁", ylabel="x₂", aspect="equal")
    fig.colorbar(image, ax=axes, shrink=0.8, label="prediction (circle: 0, triangle: 1)")
    fig.savefig(path, dpi=80)


def check_gradients(seed):
    """The largest error of back propagation against central differences, over three networks."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(8, 3)), rng.integers(0, 2, (8, 1)).astype(float)
    worst = 0.0
    for hidden, output, cost in (
        ("tanh", "sigmoid", "cross_entropy"),
        ("sigmoid", "sigmoid", "mse"),
        ("relu", "linear", "mse"),
    ):
        layers, activations = init_layers((3, 5, 4, 1), rng), [hidden, hidden, output]
        predicted, cache = forward(layers, activations, X)
        ours = backward(layers, activations, cache, predicted, y, cost)
        theirs = numeric_gradients(layers, activations, X, y, cost)
        worst = max(worst, largest_difference(ours, theirs))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="the first of ten seeds")
    parser.add_argument("--run-dir", type=Path, default="runs/xor_from_scratch", help="pictures")
    args = parser.parse_args()
    try:
        args.run_dir.mkdir(parents=True, exist_ok=True)
        np.random.default_rng(args.seed)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    trained, scores = {}, {}
    for name, sizes, activations, cost in (
        ("linear_neuron", (2, 1), ["linear"], "mse"),
        ("logistic_neuron", (2, 1), ["sigmoid"], "cross_entropy"),
        ("two_linear_layers", (2, 4, 1), ["linear", "sigmoid"], "cross_entropy"),
        ("network", (2, 4, 1), ["tanh", "sigmoid"], "cross_entropy"),
    ):
        layers, scores[name] = train_on_xor(sizes, activations, cost, args.seed)
        trained[name] = layers, activations
        print("{:18} accuracy {:4.0%}   MSE {:.4f}".format(name, *scores[name].values()))

    solved = {}
    for hidden in (2, 4):
        network = (2, hidden, 1), ["tanh", "sigmoid"], "cross_entropy"
        for way, size in (("batch", 4), ("mini-batch of 2", 2), ("stochastic", 1)):
            runs = [train_on_xor(*network, args.seed + i, size)[1] for i in range(10)]
            solved[f"{hidden} hidden, {way}"] = sum(run["accuracy"] == 1 for run in runs)
    for name, runs in solved.items():
        print(f"{name:25} solved by {runs:2} of 10 seeds")

    sizes, rng = (100, 30, 30, 1), np.random.default_rng(1)
    print(f"100-30-30-1: {count_parameters(sizes):,} parameters", end="")
    print(f", {count_parameters(sizes, biases=False):,} without the biases (the book's number)")
    stack, X = init_layers(sizes, rng), rng.normal(size=(5, 100))
    one = linear_function(X, *collapse_linear_layers(stack))
    apart = np.abs(forward(stack, ["linear"] * 3, X)[0] - one).max()
    print(f"100-30-30-1, all linear, against one 100-1 layer: {apart:.0e} apart")
    error = check_gradients(args.seed)
    print(f"back propagation against central differences: largest difference {error:.0e}")

    plot_activations(args.run_dir / "activations.png")
    titles = {"logistic neuron": "logistic_neuron", "4 tanh, 1 sigmoid": "network"}
    plot_boundaries(args.run_dir / "xor.png", {t: trained[n] for t, n in titles.items()})
    metrics = {"script": "xor_from_scratch", "seed": args.seed}
    metrics |= {"train": scores.pop("network"), "baselines": scores}
    metrics |= {"solved_of_10_seeds": solved, "gradient_check": error}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
