"""A simple RNN and an LSTM, step by step in NumPy, forwards and back through time.

Book: chapter 9, "Introducing recurrent neural networks" to "Backpropagation through time".

    python chapter09/rnn_from_scratch.py               # seconds; draws gradient_reach.png

What is shown: (1) both cells are a handful of matrix products, and with the same weights they
give what Keras's layers give, to 1e-5. (2) How much of a gradient is left so many steps back. What
to look for in the picture: nearly straight lines on the logarithmic scale, so each step back
multiplies the gradient by about the same factor. For the simple RNN its recurrent weights set that
factor, once for all: below 1 the gradient vanishes, above 1 it grows until tanh holds it. For the
LSTM it is the forget gate, unit by unit and step by step: shut it forgets at once, half open
(bias 1, Keras's default) it reaches less far than a well-chosen simple RNN, and open it reaches as
far as one likes. That the LSTM learns when to open it is its whole advantage.

The book's output formula of the LSTM is misprinted: under the output gate it repeats that of the
input gate. Meant is h_t = OutGate * tanh(C_t), as in `lstm_step`.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import matplotlib
import numpy as np

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent


def sigmoid(z):
    """1 / (1 + e^-z), without overflow for large |z|."""
    return 0.5 * (1 + np.tanh(0.5 * z))


def rnn_step(x, h, U, W, b):
    """One step of the simple RNN: a = b + W h + U x, h = tanh(a).

    Args:
        x: (n, features), this step's input. h: (n, units), the step before's output.
        U: (features, units); W: (units, units); b: (units,). Rows times matrix, as Keras stores
            them, where the book writes matrix times column.

    Returns:
        h: (n, units).
    """
    return np.tanh(b + h @ W + x @ U)


def rnn_forward(inputs, U, W, b):
    """All steps from h = 0: (n, steps, features) to the h of every step, (n, steps, units).

    The book's o = c + V h is a Dense layer on top.
    """
    h = np.zeros((len(inputs), len(b)))
    outputs = []
    for t in range(inputs.shape[1]):
        h = rnn_step(inputs[:, t], h, U, W, b)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def rnn_backward(outputs, W, gradient):
    """Backpropagation through time: from dL/dh of the last step to that of every step.

    Args:
        outputs: what `rnn_forward` returned. gradient: (n, units), dL/dh of the last step.

    Returns:
        (n, steps, units): dL/dh_t, by way of all steps after t.
    """
    gradients = [gradient]
    for t in range(outputs.shape[1] - 1, 0, -1):
        da = gradients[-1] * (1 - outputs[:, t] ** 2)  # tanh' = 1 - tanh²
        gradients.append(da @ W.T)
    return np.stack(gradients[::-1], axis=1)


def lstm_step(x, h, C, kernel, recurrent_kernel, bias):
    """One step of the LSTM.

    The book's W · [h, x] are the columns of `recurrent_kernel` and `kernel`: four blocks of as many
    columns as there are units, in Keras's order: input gate, forget gate, candidate, output gate.

    Args:
        x: (n, features). h, C: (n, units), output and memory bus of the step before.
        kernel: (features, 4 units); recurrent_kernel: (units, 4 units); bias: (4 units,).

    Returns:
        h, C: (n, units); gates: dict of the four, each (n, units).
    """
    z = x @ kernel + h @ recurrent_kernel + bias
    i, f, candidate, out = np.split(z, 4, axis=1)
    gates = {
        "input": sigmoid(i),  # which units take something in
        "forget": sigmoid(f),  # how much each keeps: 1 keeps all
        "candidate": np.tanh(candidate),  # what may be taken in
        "output": sigmoid(out),  # how much each shows
    }
    C = gates["forget"] * C + gates["input"] * gates["candidate"]
    h = gates["output"] * np.tanh(C)  # misprinted in the book
    return h, C, gates


def lstm_forward(inputs, kernel, recurrent_kernel, bias):
    """All steps from h = C = 0.

    Returns:
        (n, steps, units), the h of every step; list of (C before, C, gates), one for each step.
    """
    h = C = np.zeros((len(inputs), len(recurrent_kernel)))
    outputs, steps = [], []
    for t in range(inputs.shape[1]):
        before = C
        h, C, gates = lstm_step(inputs[:, t], h, C, kernel, recurrent_kernel, bias)
        outputs.append(h)
        steps.append((before, C, gates))
    return np.stack(outputs, axis=1), steps


def lstm_backward(steps, recurrent_kernel, gradient):
    """Backpropagation through time: from dL/dh of the last step to those of every step.

    Args:
        steps: from `lstm_forward`. gradient: (n, units), dL/dh of the last step.

    Returns:
        dL/dh_t and dL/dC_t, each (n, steps, units), by way of all steps after t (C_t also by h_t).
    """
    dh, dC = gradient, np.zeros_like(gradient)
    dhs, dCs = [], []
    for before, C, g in reversed(steps):
        dhs.append(dh)
        tanh_C = np.tanh(C)
        dC = dC + dh * g["output"] * (1 - tanh_C**2)
        dCs.append(dC)
        dz = [  # each gate's own slope: s(1 - s) of a sigmoid, 1 - t² of a tanh
            dC * g["candidate"] * g["input"] * (1 - g["input"]),
            dC * before * g["forget"] * (1 - g["forget"]),
            dC * g["input"] * (1 - g["candidate"] ** 2),
            dh * tanh_C * g["output"] * (1 - g["output"]),
        ]
        dh = np.concatenate(dz, axis=1) @ recurrent_kernel.T
        dC = dC * g["forget"]  # the memory bus: no matrix on the way, only the gate
    return np.stack(dhs[::-1], axis=1), np.stack(dCs[::-1], axis=1)


def compare_with_keras(seed=1, steps=12, features=3, units=8):
    """Largest differences between our outputs and those of Keras's layers with equal weights."""
    import keras  # here, so that the functions above need NumPy alone

    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(5, steps, features)).astype("float32")
    differences = {}
    for name, layer, forward in (
        ("simple RNN", keras.layers.SimpleRNN, rnn_forward),
        ("LSTM", keras.layers.LSTM, lambda *args: lstm_forward(*args)[0]),
    ):
        layer = layer(units, return_sequences=True)
        layer.build(inputs.shape)
        # Random biases, too: with Keras's zeros a mixed-up order of the gates could pass unseen.
        weights = [rng.normal(0, 0.5, weight.shape) for weight in layer.get_weights()]
        layer.set_weights(weights)
        theirs = keras.ops.convert_to_numpy(layer(inputs))
        differences[name] = float(np.abs(forward(inputs, *weights) - theirs).max())
    return differences


def glorot(rng, rows, columns):
    """Glorot's uniform weights, Keras's default for inputs."""
    limit = np.sqrt(6 / (rows + columns))
    return rng.uniform(-limit, limit, (rows, columns))


def orthogonal(rng, rows, columns):
    """Random orthonormal rows, Keras's default for recurrent weights."""
    q, r = np.linalg.qr(rng.normal(size=(columns, rows)))
    return (q * np.sign(np.diag(r))).T


def rnn_reach(rng, recurrent_scale, steps, units=50, features=1):
    """Length of dL/dh_t for each t, relative to the last step's, for an untrained simple RNN."""
    U, b = glorot(rng, features, units), np.zeros(units)
    W = recurrent_scale * orthogonal(rng, units, units)
    outputs = rnn_forward(rng.normal(size=(20, steps, features)), U, W, b)
    gradients = rnn_backward(outputs, W, rng.normal(size=(20, units)))
    return relative_length(gradients)


def lstm_reach(rng, forget_bias, steps, units=50, features=1):
    """The same along the LSTM's memory bus: length of dL/dC_t."""
    bias = np.zeros(4 * units)
    bias[units : 2 * units] = forget_bias
    recurrent = orthogonal(rng, units, 4 * units)
    inputs = rng.normal(size=(20, steps, features))
    _, cells = lstm_forward(inputs, glorot(rng, features, 4 * units), recurrent, bias)
    _, gradients = lstm_backward(cells, recurrent, rng.normal(size=(20, units)))
    return relative_length(gradients)


def relative_length(gradients):
    """(n, steps, units) to (steps,): mean length over the n, newest step first, starting at 1."""
    lengths = np.linalg.norm(gradients, axis=2).mean(axis=0)[::-1]
    return lengths / lengths[0]


def half_life(lengths):
    """Steps back after which less than half of the gradient is left; None if it never is."""
    below = np.flatnonzero(lengths < 0.5)
    return int(below[0]) if len(below) else None


def gradient_reach(seed=1, steps=100):
    """Curves of both cells; returns name → (steps,) relative length of the gradient."""
    curves = {}
    for scale in (0.5, 1.0, 1.5):
        name = f"simple RNN, recurrent weights × {scale:g}"
        curves[name] = rnn_reach(np.random.default_rng(seed), scale, steps)
    for bias in (0, 1, 5):
        name = f"LSTM, forget bias {bias} (gate near {sigmoid(np.float64(bias)):.2f})"
        curves[name] = lstm_reach(np.random.default_rng(seed), bias, steps)
    return curves


def plot_reach(curves, path):
    """How much of the gradient is left after so many steps back, as a picture."""
    fig, ax = plt.subplots(figsize=(8, 5))
    for name, lengths in curves.items():
        ax.semilogy(lengths, label=name, ls="--" if name.startswith("LSTM") else "-")
    ax.set(
        xlabel="steps back in time",
        ylabel="length of the gradient, last step = 1",
        ylim=(1e-16, 1e4),
    )
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="how far back (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=ROOT / "runs" / "chapter09" / "rnn_from_scratch",
        help="for the picture",
    )
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("--steps must be 2 or more")

    for name, difference in compare_with_keras(args.seed).items():
        verdict = "equal" if difference < 1e-5 else "NOT EQUAL"
        print(f"{name}: largest difference from Keras's layer {difference:.1e}: {verdict}")
    curves = gradient_reach(args.seed, args.steps)
    print(f"\nWhat is left of a gradient:   half gone after   after {args.steps - 1} steps")
    for name, lengths in curves.items():
        half = half_life(lengths)
        print(f"{name:38} {half if half else 'never':>6}   {lengths[-1]:.1e}")
    plot_reach(curves, args.run_dir / "gradient_reach.png")
    print(f"The picture is in {args.run_dir}")


if __name__ == "__main__":
    main()
