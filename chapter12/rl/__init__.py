"""Deep reinforcement learning with the names of keras-rl, on Keras 3 and gymnasium.

keras-rl (2018), which the book uses, runs on no TensorFlow of today. This package takes its place
for chapter 12: `DQNAgent`, `SequentialMemory`, the policies and the callbacks have its names and
its arguments. docs/differences.md lists where it behaves otherwise, and why.
"""
