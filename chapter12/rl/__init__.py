"""Deep Q-learning with keras-rl's names, arguments and behaviour, on Keras 3 and gymnasium.

keras-rl (2018), which the book uses, runs on no TensorFlow of today. Here is what the book uses of
it; DDPG, NAF, CEM and SARSA are not. Where it differs, the docstrings say so.
"""
