"""SGD, momentum, RMSProp and Adam in NumPy, on a badly scaled bowl and in a curved valley.

Book: chapter 1, "Optimization algorithms for deep learning". Three of its printed rules need a
correction; the rules here are the right ones and equal Keras's step by step (a test says so).

    python chapter01/optimizers.py

Expect: on the bowl momentum and Adam settle in a seventh of the steps that SGD takes; the printed
rules of both fly apart within two steps.
"""

import argparse
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

    The book prints v ← β·v + (1 - β)·grad², θ ← θ - v. The square has to go (it forgets which way
    is down) and the learning rate is missing. Its moving average, with both put right, is this rule
    at a learning rate of (1 - β)·α.
    """
    state["v"] = beta * state.get("v", 0.0) - learning_rate * gradient
    return theta + state["v"]


def rmsprop(theta, gradient, state, learning_rate, beta=0.9, epsilon=1e-7):
    """v ← β·v + (1 - β)·grad²; θ ← θ - α·grad / √(v + ε): every coordinate gets a step of its own.

    As printed but for ε, without which a coordinate whose gradient is 0 is divided by 0.
    """
    state["v"] = beta * state.get("v", 0.0) + (1 - beta) * gradient**2
    return theta - learning_rate * gradient / np.sqrt(state["v"] + epsilon)


def adam(theta, gradient, state, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """m ← β₁·m + (1 - β₁)·grad; v ← β₂·v + (1 - β₂)·grad²; θ ← θ - α·m̂ / (√v̂ + ε̂).

    The book prints grad for grad² in v, so that √v is the root of a negative number wherever the
    slope is; m and v without the bias correction m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ), which makes
    up for their start at 0; and ε under the root. Keras folds the correction into the learning
    rate, so that its ε is added to √v and not to √v̂.
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

# The bowl is 200 times steeper across than along, and turned by 30 degrees: along the axes
# RMSProp and Adam, which scale each coordinate by itself, would have it too easy.
TURN = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])
BOWL = TURN @ np.diag([1.0, 200.0]) @ TURN.T
# name → (J(θ), ∂J/∂θ, start); θ may also be a grid of shape (2, rows, columns) for J.
SURFACES = {
    "bowl": (
        lambda t: 0.5 * np.einsum("i...,ij,j...", t, BOWL, t),
        lambda t: BOWL @ t,
        (-4.0, -1.5),
    ),
    "valley": (  # Rosenbrock's, with 10 for its 100
        lambda t: (1 - t[0]) ** 2 + 10 * (t[1] - t[0] ** 2) ** 2,
        lambda t: np.array(
            [
                2 * (t[0] - 1) - 40 * t[0] * (t[1] - t[0] ** 2),
                20 * (t[1] - t[0] ** 2),
            ]
        ),
        (-1.2, 1.0),
    ),
}


def descend(rule, surface, learning_rate, steps, start=None):
    """Walk down: (path of shape (k + 1, 2), its losses); k < steps if J left for 1e8 or NaN."""
    loss, gradient, usual_start = SURFACES[surface]
    theta, state = np.array(usual_start if start is None else start, dtype=float), {}
    path, losses = [theta], [loss(theta)]
    with np.errstate(invalid="ignore"):  # the root of a negative number, in a printed rule
        while len(path) <= steps and losses[-1] < 1e8:
            theta = rule(theta, gradient(theta), state, learning_rate)
            path.append(theta)
            losses.append(loss(theta))
    return np.array(path), np.array(losses)


def steps_to_settle(losses, threshold, steps):
    """Steps until the loss is below the threshold for good, or None.

    For good: to the end of the run, 50 steps at least. Otherwise a rule that leaps across the
    minimum by luck would win.
    """
    if len(losses) <= steps:  # diverged
        return None
    above = np.flatnonzero(~(losses < threshold))
    settled = int(above[-1]) + 1 if len(above) else 0
    return settled if settled <= steps - 50 else None


def best_run(rule, surface, threshold, steps):
    """The learning rate that settles first: (steps, rate), or (None, None)."""
    runs = (
        (steps_to_settle(descend(rule, surface, r, steps)[1], threshold, steps), r) for r in RATES
    )
    return min(((n, float(r)) for n, r in runs if n is not None), default=(None, None))


def plot(path, rates, steps):
    """A row for each surface: every rule's path over the contours, and the losses by step."""
    fig, axes = plt.subplots(2, 5, figsize=(15, 6), layout="constrained")
    for row, surface in zip(axes, SURFACES, strict=True):
        loss, _, start = SURFACES[surface]
        limits = ((-5, 5), (-3.5, 3.5)) if surface == "bowl" else ((-1.8, 1.8), (-1, 2.2))
        grid = np.stack(np.meshgrid(*(np.linspace(*edge, 201) for edge in limits)))
        for ax, (name, rule) in zip(row, RULES.items(), strict=False):
            walked, losses = descend(rule, surface, rates[surface][name], steps)
            ax.contour(*grid, loss(grid), np.logspace(-2, 3, 11), colors="gray", linewidths=0.5)
            (line,) = ax.plot(*walked[:150].T, ".-", color=f"C{ax.get_subplotspec().colspan[0]}")
            ax.plot(*start, "ko")
            ax.plot(*((0, 0) if surface == "bowl" else (1, 1)), "k*", markersize=12)
            ax.set(title=f"{surface}: {name}, α = {rates[surface][name]:.2g}")
            ax.set(xlim=limits[0], ylim=limits[1], xlabel="first 150 steps")
            row[4].semilogy(losses[:800], color=line.get_color(), label=name)
        row[4].set(title="loss J", xlabel="step", ylim=(1e-8, 1e3))
        row[4].legend(fontsize=8)
    fig.savefig(path, dpi=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="budget of a descent, from 100")
    parser.add_argument("--run-dir", type=Path, default="runs/optimizers", help="for the picture")
    args = parser.parse_args()
    if args.steps < 100:
        parser.error("--steps begins at 100")
    try:
        args.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--run-dir: {error}")

    print(f"Steps until the loss stays below a threshold (best of {len(RATES)} learning rates):")
    print(f"{'':10}{'surface':10}{'J < 0.01':>10}{'J < 0.0001':>12}{'α (0.01)':>10}")
    settled, rates = {}, {surface: {} for surface in SURFACES}
    for surface in SURFACES:
        for name, rule in RULES.items():
            coarse, rate = best_run(rule, surface, 1e-2, args.steps)
            fine, _ = best_run(rule, surface, 1e-4, args.steps)
            settled[f"{surface}, {name}"] = {"0.01": coarse, "0.0001": fine, "learning_rate": rate}
            rates[surface][name] = rate or 0.01
            cells = f"{coarse or 'never':>10}{fine or 'never':>12}{rate or float('nan'):>10.2g}"
            print(f"{name:10}{surface:10}{cells}")
    for rule in (momentum_as_printed, adam_as_printed):
        _, losses = descend(rule, "bowl", 0.1, args.steps)
        print(f"{rule.__name__}: J {losses[0]:.0f} → {losses[-1]:.1e} at step {len(losses) - 1}")
    plot(args.run_dir / "optimizers.png", rates, args.steps)
    metrics = {"script": "optimizers", "steps": args.steps, "steps_to_settle": settled}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
