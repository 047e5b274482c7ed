"""A simple RNN and an LSTM step by step in NumPy, forwards and back through time.

Book: chapter 9, "Introducing recurrent neural networks" to "Backpropagation through time".

    python chapter09/rnn_from_scratch.py    # seconds; draws runs/rnn_from_scratch/gradients.png

With the same weights both give what Keras's layers give (tests/test_chapter09.py). The picture
shows what is left of a gradient so many steps back: nearly straight lines on a logarithmic scale,
so each step multiplies it by about the same factor. Along the LSTM's memory bus C that is the
forget gate, at most 1 (dashed): open, it keeps. But C also acts through h on all gates of the next
step, and what comes back that way may grow without limit: only clipping (`clipnorm`) holds it.
"""

from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit as sigmoid


def rnn_step(x, h, U, W, b):
    """The book's a = b + W h + U x, h = tanh(a): x (n, features) and h (n, units) to the next h.

    Rows times matrices, as Keras keeps them: U (features, units), W (units, units), b (units,).
    """
    return np.tanh(b + h @ W + x @ U)


def rnn_forward(inputs, U, W, b):
    """From h = 0 on, (n, steps, features) to each step's h, (n, steps, units)."""
    h, outputs = np.zeros((len(inputs), len(b))), []
    for x in inputs.swapaxes(0, 1):
        h = rnn_step(x, h, U, W, b)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def rnn_backward(outputs, W, gradient):
    """From dL/dh of the last step, (n, units), to that of each, (n, steps, units)."""
    gradients = [gradient]
    for h in outputs.swapaxes(0, 1)[:0:-1]:  # from the last step to the second
        da = gradients[-1] * (1 - h**2)  # tanh' = 1 - tanh²
        gradients.append(da @ W.T)
    return np.stack(gradients[::-1], axis=1)


def lstm_step(x, h, C, kernel, recurrent, bias):
    """x (n, features), h and C (n, units) to the next h and C, and the four gates, (n, units) each.

    The book's W · [h, x] are columns of `recurrent` (units, 4 units) and `kernel` (features,
    4 units), in Keras's order. Under its output gate the book prints the input gate once more.
    """
    i, f, c, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
    i, f, c, o = sigmoid(i), sigmoid(f), np.tanh(c), sigmoid(o)
    C = f * C + i * c  # what is kept, and what is taken in of the candidate
    return o * np.tanh(C), C, (i, f, c, o)


def lstm_forward(inputs, kernel, recurrent, bias):
    """From h = C = 0 on, each step's h, (n, steps, units), and (C before, C, gates) of each."""
    h = C = np.zeros((len(inputs), len(recurrent)))
    outputs, steps = [], []
    for x in inputs.swapaxes(0, 1):
        before = C
        h, C, gates = lstm_step(x, h, C, kernel, recurrent, bias)
        outputs.append(h)
        steps.append((before, C, gates))
    return np.stack(outputs, axis=1), steps


def lstm_backward(steps, recurrent, gradient):
    """From dL/dh of the last step, (n, units), to dL/dh and dL/dC of each, (n, steps, units)."""
    dh, dC, dhs, dCs = gradient, np.zeros_like(gradient), [], []
    for before, C, (i, f, c, o) in reversed(steps):
        dC = dC + dh * o * (1 - np.tanh(C) ** 2)
        dhs.append(dh)
        dCs.append(dC)
        slopes = i * (1 - i), f * (1 - f), 1 - c**2, o * (1 - o)  # of sigmoid and tanh
        parts = dC * c, dC * before, dC * i, dh * np.tanh(C)
        dz = np.concatenate([d * slope for d, slope in zip(parts, slopes, strict=True)], axis=1)
        dh = dz @ recurrent.T  # by way of the next step's gates
        dC = dC * f  # along the memory bus
    return np.stack(dhs[::-1], axis=1), np.stack(dCs[::-1], axis=1)


def initial_weights(layer):
    """What Keras begins with, for one input."""
    layer.build((None, None, 1))
    return [weight.astype("float64") for weight in layer.get_weights()]


def measure_gradients(steps=100, units=50, seed=1):
    """Lengths of gradients 0, 1, … steps back, the last step's being 1: name → (steps,).

    Of untrained cells: h of simple RNNs whose recurrent weights are Keras's times a factor, and C
    of LSTMs with three forget biases (Keras's is 1), all of it and by way of the gates alone.
    """
    keras.utils.set_random_seed(seed)
    rng, gradients = np.random.default_rng(seed), {}
    inputs, last = rng.normal(size=(20, steps, 1)), rng.normal(size=(20, units))
    for factor in (0.5, 1, 1.5):
        U, W, b = initial_weights(keras.layers.SimpleRNN(units))
        outputs = rnn_forward(inputs, U, factor * W, b)
        gradients[f"simple RNN, weights × {factor}"] = rnn_backward(outputs, factor * W, last)
    for forget_bias in (0, 1, 5):
        kernel, recurrent, bias = initial_weights(keras.layers.LSTM(units))
        bias[units : 2 * units] = forget_bias
        _, cells = lstm_forward(inputs, kernel, recurrent, bias)
        name = f"LSTM, forget bias {forget_bias}"
        gradients[name] = lstm_backward(cells, recurrent, last)[1]
        kept = [gradients[name][:, -1], *(forget for _, _, (_, forget, _, _) in cells[:0:-1])]
        gradients[f"{name}, gates alone"] = np.cumprod(kept, axis=0)[::-1].swapaxes(0, 1)
    lengths = {n: np.linalg.norm(g, axis=2).mean(axis=0)[::-1] for n, g in gradients.items()}
    return {name: length / length[0] for name, length in lengths.items()}


def main():
    fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, lengths in measure_gradients().items():
        half = np.flatnonzero(lengths < 0.5)
        print(f"{name:34} half gone after {half[0] if len(half) else '-':>2} steps,", end=" ")
        print(f"{lengths[-1]:.1e} left after {len(lengths) - 1}")
        ax.semilogy(lengths, label=name, linestyle="--" if "alone" in name else "-")
    ax.set(xlabel="steps back", ylabel="length of the gradient, last step = 1", ylim=(1e-16, 1e4))
    ax.legend(fontsize=8, loc="lower left")
    run_dir = Path("runs", "rnn_from_scratch")
    run_dir.mkdir(parents=True, exist_ok=True)
    fig.savefig(run_dir / "gradients.png", dpi=100)
    print(f"gradients.png is in {run_dir}")


if __name__ == "__main__":
    main()
