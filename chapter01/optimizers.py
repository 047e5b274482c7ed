"""SGD, momentum, RMSProp and Adam in NumPy, on a badly scaled bowl and in a curved valley.

Book: chapter 1, "Optimization algorithms for deep learning". Three of its printed rules need a
correction; the rules here are the right ones and equal Keras's step by step (a test says so).

    python chapter01/optimizers.py

Expect: on the bowl momentum and Adam settle in a seventh of the steps that SGD takes; the printed
rules of both fly apart within two steps.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

# A rule takes the parameters θ, the gradient ∂J/∂θ (both float arrays of one shape) and a dict in
# which it keeps what it remembers between steps; it returns the next θ.


def sgd(theta, gradient, state, learning_rate):
    """θ ← θ - α·grad: gradient descent as in back propagation, nothing remembered."""
    return theta - learning_rate * gradient


def momentum(theta, gradient, state, learning_rate, beta=0.9):
    """v ← β·v - α·grad; θ ← θ + v: a ball that gathers speed where the slope stays the same.

    In the book grad is squared, which forgets the way down, and the learning rate is missing.
    """
    state["v"] = beta * state.get("v", 0.0) - learning_rate * gradient
    return theta + state["v"]


def rmsprop(theta, gradient, state, learning_rate, beta=0.9, epsilon=1e-7):
    """v ← β·v + (1 - β)·grad²; θ ← θ - α·grad / √(v + ε): every coordinate gets a step of its own.

    The book has no ε: where the gradient is 0 it divides by 0.
    """
    state["v"] = beta * state.get("v", 0.0) + (1 - beta) * gradient**2
    return theta - learning_rate * gradient / np.sqrt(state["v"] + epsilon)


def adam(theta, gradient, state, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """m ← β₁·m + (1 - β₁)·grad; v ← β₂·v + (1 - β₂)·grad²; θ ← θ - α·m̂ / (√v̂ + ε̂).

    The book has grad for grad² in v, and no bias correction m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ),
    which makes up for the start at 0. Keras, and this, have it in the learning rate: ε joins √v.
    """
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * gradient
    state["v"] = beta_2 * state.get("v", 0.0) + (1 - beta_2) * gradient**2
    corrected_rate = learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    return theta - corrected_rate * state["m"] / (np.sqrt(state["v"]) + epsilon)


def momentum_as_printed(theta, gradient, state, learning_rate, beta=0.9):
    """The book's line, to be seen failing: v is never negative, so θ can only ever decrease."""
    state["v"] = beta * state.get("v", 0.0) + (1 - beta) * gradient**2
    return theta - state["v"]


def adam_as_printed(theta, gradient, state, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """The book's line, to be seen failing: NaN as soon as a coordinate's mean slope is negative."""
    state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * gradient
    state["v"] = beta_2 * state.get("v", 0.0) + (1 - beta_2) * gradient
    return theta - learning_rate * state["m"] / np.sqrt(state["v"] + epsilon)


RULES = {"SGD": sgd, "momentum": momentum, "RMSProp": rmsprop, "Adam": adam}
RATES = 10.0 ** np.arange(-4, 0.1, 0.25)  # every rule may choose the best of these 17
STEPS = 1000

# The bowl is 200 times steeper across than along, and turned by 30 degrees: along the axes
# RMSProp and Adam, which scale each coordinate by itself, would have it too easy.
TURN = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])
BOWL = TURN @ np.diag([1.0, 200.0]) @ TURN.T


def valley(theta):
    """Rosenbrock's, with 10 for its 100."""
    x, y = theta
    return (1 - x) ** 2 + 10 * (y - x**2) ** 2


def valley_gradient(theta):
    x, y = theta
    return np.array([2 * (x - 1) - 40 * x * (y - x**2), 20 * (y - x**2)])


# name: J of θ, (2,) or a grid (2, rows, columns); ∂J/∂θ; start; edges of the picture
SURFACES = {
    "bowl": (
        lambda theta: 0.5 * np.einsum("i...,ij,j...", theta, BOWL, theta),
        lambda theta: BOWL @ theta,
        (-4.0, -1.5),
        (-5, 5, -3.5, 3.5),
    ),
    "valley": (valley, valley_gradient, (-1.2, 1.0), (-1.8, 1.8, -1, 2.2)),
}


def descend(rule, surface, learning_rate, steps=STEPS):
    """Walk down: (path of shape (k + 1, 2), its losses); k < steps if J left for 1e8 or NaN."""
    loss, gradient, start, *_ = SURFACES[surface]
    theta, state = np.array(start), {}
    path, losses = [theta], [loss(theta)]
    with np.errstate(invalid="ignore"):  # the root of a negative number, in a printed rule
        while len(path) <= steps and losses[-1] < 1e8:
            theta = rule(theta, gradient(theta), state, learning_rate)
            path.append(theta)
            losses.append(loss(theta))
    return np.array(path), np.array(losses)


def steps_to_settle(losses, threshold):
    """Steps until the loss is below the threshold for good, 50 steps at least; None: never."""
    above = np.flatnonzero(~(losses < threshold))  # NaN, too
    settled = int(above.max(initial=-1)) + 1
    return settled if settled + 50 < len(losses) else None


def best_run(rule, surface, threshold):
    """The learning rate that settles first: (steps, rate), or (None, 0.01)."""
    runs = ((steps_to_settle(descend(rule, surface, r)[1], threshold), r) for r in RATES)
    return min((run for run in runs if run[0] is not None), default=(None, 0.01))


def plot(path, rates):
    """A row for each surface: every rule's path over the contours, and the losses by step."""
    fig, axes = plt.subplots(2, 5, figsize=(15, 6), layout="constrained")
    for row, surface in zip(axes, SURFACES, strict=True):
        loss, _, start, edges = SURFACES[surface]
        grid = np.stack(np.meshgrid(np.linspace(*edges[:2], 201), np.linspace(*edges[2:], 201)))
        for i, (name, rule) in enumerate(RULES.items()):
            walked, losses = descend(rule, surface, rates[surface, name])
            row[i].contour(*grid, loss(grid), np.logspace(-2, 3, 11), colors="gray", linewidths=0.5)
            row[i].plot(*walked[:150].T, ".-", color=f"C{i}")
            row[i].plot(*start, "ko")
            row[i].axis(edges)
            row[i].set_title(f"{surface}: {name}, α = {rates[surface, name]:.2g}")
            row[i].set_xlabel("first 150 steps")
            row[4].semilogy(losses[:800], color=f"C{i}", label=name)
        row[4].set(title="loss J", xlabel="step", ylim=(1e-8, 1e3))
        row[4].legend(fontsize=8)
    fig.savefig(path, dpi=60)


def main():
    run_dir = Path("runs", "optimizers")
    run_dir.mkdir(parents=True, exist_ok=True)
    print(f"Steps until the loss stays below a threshold (best of {len(RATES)} learning rates):")
    print(f"{'':10}{'surface':10}{'J < 0.01':>10}{'J < 0.0001':>12}{'α (0.01)':>10}")
    settled, rates = {}, {}
    for surface in SURFACES:
        for name, rule in RULES.items():
            coarse, rate = best_run(rule, surface, 1e-2)
            fine, _ = best_run(rule, surface, 1e-4)
            settled[f"{surface}, {name}"] = {"0.01": coarse, "0.0001": fine, "learning_rate": rate}
            rates[surface, name] = rate
            print(f"{name:10}{surface:10}{coarse or 'never':>10}{fine or 'never':>12}{rate:>10.2g}")
    for rule in (momentum_as_printed, adam_as_printed):
        _, losses = descend(rule, "bowl", 0.1)
        print(f"{rule.__name__}: J {losses[0]:.0f} → {losses[-1]:.1e} at step {len(losses) - 1}")
    plot(run_dir / "optimizers.png", rates)
    metrics = {"script": "optimizers", "steps": STEPS, "steps_to_settle": settled}
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Metrics and picture are in {run_dir}")


if __name__ == "__main__":
    main()
