"""A neural network from scratch, in NumPy alone: neurons, activations, costs, back propagation.

Book: chapter 1, "The deep neural network architectures". The data is the exclusive OR: four rows,
two inputs, one output. A linear neuron cannot model it and a network of two layers can.

    python chapter01/xor_from_scratch.py

Expect: the linear and the logistic neuron stay at an MSE of 0.25 and 50-75 % accuracy; a network
with four tanh neurons solves XOR for every one of ten seeds.
Notation: m rows; z is what a neuron's linear function gives, a = f(z) what its activation gives.
"""

import itertools
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

SEED = 0  # the first of ten
XOR_X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
XOR_Y = np.array([[0], [1], [1], [0]], dtype=float)


def linear_function(a, weights, bias):
    """z = a·θ + b for one layer: (m, n_in), (n_in, n_out), (n_out,) to (m, n_out)."""
    return a @ weights + bias


def sigmoid(z):
    """1 / (1 + e^-z), written so that no exponent is positive: e^800 would overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


# name: (function, derivative), both of z, element by element. ReLU's at exactly 0 is taken as 0.
# Leaky ReLU mends the neuron whose z is negative in every row: ReLU gives it no gradient any more.
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
    """Mean of -log(probability given to the right answer), 0 or 1."""
    p = np.clip(predicted, 1e-12, 1 - 1e-12)  # log(0) is -inf
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


COSTS = {"mse": mse_cost, "cross_entropy": cross_entropy_cost}


def init_layers(sizes, rng):
    """[(weights, bias), …] for layer sizes such as (2, 4, 1), weights by Glorot's uniform rule."""
    layers = []
    for shape in itertools.pairwise(sizes):
        limit = np.sqrt(6 / sum(shape))
        layers.append((rng.uniform(-limit, limit, shape), np.zeros(shape[1])))
    return layers


def count_parameters(sizes, biases=True):
    """Learnable parameters of a fully connected network; the book counts them without `biases`."""
    return sum(n_out * (n_in + biases) for n_in, n_out in itertools.pairwise(sizes))


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
        a = ACTIVATIONS[name][0](z)
    return a, cache


def backward(layers, activations, X, y, cost):
    """Back propagation: ∂J/∂θ of each layer, in the shapes of `layers`, found from last to first.

    δ is ∂J/∂z. For cross-entropy behind a sigmoid, its only place here, the chain rule cancels to
    (ŷ - y)/m, so that an output that is wrong and sure of it still learns; under MSE it does not.
    """
    if cost == "cross_entropy" and activations[-1] != "sigmoid":
        raise ValueError(f"no gradient for cross-entropy behind {activations[-1]}")
    predicted, cache = forward(layers, activations, X)
    delta = (predicted - y) / len(y)
    if cost == "mse":
        delta = delta * ACTIVATIONS[activations[-1]][1](cache[-1][1])
    gradients = []
    for i in reversed(range(len(layers))):
        gradients.insert(0, (cache[i][0].T @ delta, delta.sum(axis=0)))
        if i > 0:
            delta = (delta @ layers[i][0].T) * ACTIVATIONS[activations[i - 1]][1](cache[i - 1][1])
    return gradients


def gradient_error(layers, activations, X, y, cost, step=1e-6):
    """The largest error of `backward` against central differences, (J(θ + h) - J(θ - h)) / 2h."""
    errors = []
    for layer, gradient in zip(layers, backward(layers, activations, X, y, cost), strict=True):
        for parameter, slopes in zip(layer, gradient, strict=True):
            for index in np.ndindex(parameter.shape):
                before, costs = parameter[index], []
                for moved in (before + step, before - step):
                    parameter[index] = moved
                    costs.append(COSTS[cost](y, forward(layers, activations, X)[0]))
                parameter[index] = before
                errors.append(abs(slopes[index] - (costs[0] - costs[1]) / (2 * step)))
    return max(errors)


def check_gradients(seed):
    """The largest error of back propagation, over three networks."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(8, 3)), rng.integers(0, 2, (8, 1)).astype(float)
    errors = []
    for hidden, output, cost in (
        ("tanh", "sigmoid", "cross_entropy"),
        ("sigmoid", "sigmoid", "mse"),
        ("relu", "linear", "mse"),
    ):
        layers = init_layers((3, 5, 4, 1), rng)
        errors.append(gradient_error(layers, [hidden, hidden, output], X, y, cost))
    return max(errors)


def train(layers, activations, X, y, cost, learning_rate, epochs, batch_size, rng):
    """Gradient descent, θ ← θ - α ∂J/∂θ, changing `layers`.

    batch_size = len(X) is batch gradient descent, 1 is stochastic, anything between mini-batch.
    """
    for _ in range(epochs):
        order = rng.permutation(len(X))
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            gradients = backward(layers, activations, X[rows], y[rows], cost)
            for layer, gradient in zip(layers, gradients, strict=True):
                for parameter, slope in zip(layer, gradient, strict=True):
                    parameter -= learning_rate * slope


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
    """Each activation and its derivative over z from -5 to 5."""
    z = np.linspace(-5, 5, 501)
    fig, axes = plt.subplots(1, 5, figsize=(13, 3), sharey=True, layout="constrained")
    for ax, (name, (f, derivative)) in zip(axes, ACTIVATIONS.items(), strict=True):
        ax.plot(z, f(z), label="f(z)")
        ax.plot(z, derivative(z), "--", label="f′(z)")
        ax.set(title=name, xlabel="z", ylim=(-1.3, 1.6))
        ax.grid(alpha=0.3)
    ax.legend()
    fig.savefig(path, dpi=80)


def plot_boundaries(path, networks):
    """The prediction over the plane of some {title: (layers, activations)}, line at 0.5."""
    steps = np.linspace(-0.5, 1.5, 201)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1)
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 4), layout="constrained")
    for ax, title in zip(axes, ("logistic_neuron", "network"), strict=True):
        surface = forward(*networks[title], grid)[0][..., 0]
        image = ax.contourf(steps, steps, surface, np.linspace(0, 1, 21), cmap="coolwarm")
        ax.contour(steps, steps, surface, [0.5], colors="black")
        ax.scatter(*XOR_X.T, s=120, c=XOR_Y, cmap="coolwarm", edgecolors="black", zorder=3)
        ax.set(title=title, xlabel="x₁", ylabel="x₂", aspect="equal")
    fig.colorbar(image, ax=axes, shrink=0.8, label="prediction (points: the answer)")
    fig.savefig(path, dpi=80)


def main():
    run_dir = Path("runs", "xor_from_scratch")
    run_dir.mkdir(parents=True, exist_ok=True)
    trained, scores = {}, {}
    for name, sizes, activations, cost in (
        ("linear_neuron", (2, 1), ["linear"], "mse"),
        ("logistic_neuron", (2, 1), ["sigmoid"], "cross_entropy"),
        ("two_linear_layers", (2, 4, 1), ["linear", "sigmoid"], "cross_entropy"),
        ("network", (2, 4, 1), ["tanh", "sigmoid"], "cross_entropy"),
    ):
        layers, scores[name] = train_on_xor(sizes, activations, cost, SEED)
        trained[name] = layers, activations
        print("{:18} accuracy {:4.0%}   MSE {:.4f}".format(name, *scores[name].values()))

    solved = {}
    for hidden in (2, 4):
        network = (2, hidden, 1), ["tanh", "sigmoid"], "cross_entropy"
        for way, size in (("batch", 4), ("mini-batch of 2", 2), ("stochastic", 1)):
            runs = [train_on_xor(*network, SEED + i, size)[1] for i in range(10)]
            name = f"{hidden} hidden, {way}"
            solved[name] = sum(run["accuracy"] == 1 for run in runs)
            print(f"{name:25} solved by {solved[name]:2} of 10 seeds")

    sizes, rng = (100, 30, 30, 1), np.random.default_rng(1)
    weights = count_parameters(sizes, biases=False)
    print(f"100-30-30-1: {count_parameters(sizes):,} parameters, {weights:,} of them weights")
    stack, X = init_layers(sizes, rng), rng.normal(size=(5, 100))
    one = linear_function(X, *collapse_linear_layers(stack))
    apart = np.abs(forward(stack, ["linear"] * 3, X)[0] - one).max()
    print(f"100-30-30-1, all linear, against one 100-1 layer: {apart:.0e} apart")
    error = check_gradients(SEED)
    print(f"back propagation against central differences: largest difference {error:.0e}")

    plot_activations(run_dir / "activations.png")
    plot_boundaries(run_dir / "xor.png", trained)
    metrics = {"script": "xor_from_scratch", "seed": SEED}
    metrics |= {"train": scores.pop("network"), "baselines": scores}
    metrics |= {"solved_of_10_seeds": solved, "gradient_check": error}
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Metrics and pictures are in {run_dir}")


if __name__ == "__main__":
    main()
