"""Softmax and cross-entropy in plain Python, with the book's examples: no package needed.

Book: chapter 5, "Categorical outputs", "Cost function" and "Softmax activation".

    python chapter05/softmax.py
"""

import math

Z = [0.9, 0.8, 0.2, 0.1, 0.5]  # the book's example


def softmax(z):
    """Turn any numbers into probabilities: e to each of them, divided by the sum.

    Taking the largest away first leaves the result as it is, and e^z finite: the book's version
    ends in an OverflowError from z = 710 on. Nothing is rounded here.
    """
    z_exp = [math.exp(x - max(z)) for x in z]
    sum_z_exp = sum(z_exp)
    return [i / sum_z_exp for i in z_exp]


def sigmoid(x):
    """One probability from one number, without regard to any other: softmax of x and 0."""
    return softmax([x, 0])[0]


def to_categorical(y):
    """One row for each label, with a 1 in the label's column: what Keras's function returns."""
    return [[int(label == column) for column in range(max(y) + 1)] for label in y]


def categorical_cross_entropy(y, p):
    """Mean over the rows of -log of the probability that row p gives to row y's class."""
    costs = [
        -sum(y_ij * math.log(p_ij) for y_ij, p_ij in zip(y_i, p_i, strict=True) if y_ij)
        for y_i, p_i in zip(y, p, strict=True)
    ]
    return sum(costs) / len(costs)


def binary_cross_entropy(y, p):
    """The same for two classes, with one label (0 or 1) and one probability (of 1) for each row."""
    pairs = zip(y, p, strict=True)
    costs = [-(y_i * math.log(p_i) + (1 - y_i) * math.log(1 - p_i)) for y_i, p_i in pairs]
    return sum(costs) / len(costs)


def show(numbers):
    """Three decimals, as the book prints them, and the sum."""
    return f"[{', '.join(f'{number:.3f}' for number in numbers)}], sum {sum(numbers):.3f}"


def main():
    print(f"softmax of {Z}:\n  {show(softmax(Z))}")
    print("Independent sigmoids of the same numbers are no probabilities of one class among five:")
    print(f"  {show([sigmoid(x) for x in Z])}")

    print("Large numbers do no harm, only their differences count:")
    for z in ([0, 1, 2], [1000, 1001, 1002]):
        print(f"  {show(softmax(z))}: softmax of {z}")

    # The book's formula has softmax of sigmoids; the networks have softmax of the sums themselves.
    sure = [20.0] + [-20.0] * 9
    print("Ten classes, a network as sure as can be of the first one. Its largest probability:")
    print(f"  {max(softmax(sure)):.3f}, softmax of the network's sums")
    print(f"  {max(softmax([sigmoid(x) for x in sure])):.3f}, softmax of their sigmoids")

    print(f"Labels [0, 3, 2, 1] as categories: {to_categorical([0, 3, 2, 1])}")
    y, p = [0, 1, 1], [0.2, 0.9, 0.6]
    two_columns = categorical_cross_entropy(to_categorical(y), [[1 - p_i, p_i] for p_i in p])
    print(f"Cross-entropy of labels {y} and probabilities {p}:")
    print(f"  binary {binary_cross_entropy(y, p):.6f}, categorical {two_columns:.6f}")


if __name__ == "__main__":
    main()
