"""Policies: how to pick an action when the Q-values of all actions are known."""

import random

import numpy as np


class Policy:
    """Picks an action; `self.agent`, which the agent sets, tells the step and whether it trains."""

    metrics_names = ()  # figures for the log, and their values
    metrics = ()

    def select_action(self, q_values):
        """The number of an action, given the Q-values (nb_actions,)."""
        raise NotImplementedError


class GreedyQPolicy(Policy):
    """The action of the highest Q-value."""

    def select_action(self, q_values):
        return np.argmax(q_values)


class EpsGreedyQPolicy(Policy):
    """A random action with probability `eps`, else the best.

    Without the random ones an agent never learns what it has not tried.
    """

    def __init__(self, eps=0.1):
        self.eps = eps

    def select_action(self, q_values):
        if random.random() < self.eps:
            return random.randrange(len(q_values))
        return np.argmax(q_values)


class BoltzmannQPolicy(Policy):
    """Random, but the better an action the likelier: probabilities are softmax(q / tau).

    tau is a temperature: the lower, the greedier. clip: limits of q / tau, against overflow.
    """

    def __init__(self, tau=1.0, clip=(-500.0, 500.0)):
        self.tau, self.clip = tau, clip

    def select_action(self, q_values):
        weights = np.exp(np.clip(np.asarray(q_values, "float64") / self.tau, *self.clip))
        return random.choices(range(len(q_values)), weights)[0]


class MaxBoltzmannQPolicy(BoltzmannQPolicy):
    """Boltzmann's with probability `eps`, else the best action (Wiering, 1999)."""

    def __init__(self, eps=0.1, tau=1.0, clip=(-500.0, 500.0)):
        super().__init__(tau, clip)
        self.eps = eps

    def select_action(self, q_values):
        if random.random() < self.eps:
            return super().select_action(q_values)
        return np.argmax(q_values)


class LinearAnnealedPolicy(Policy):
    """`inner_policy`, whose attribute `attr` goes from value_max to value_min in `nb_steps` steps.

    value_test is its value if it is an agent's test_policy; the book's agents have a greedy one.
    """

    def __init__(self, inner_policy, attr, value_max, value_min, value_test, nb_steps):
        if not hasattr(inner_policy, attr):
            raise ValueError(f'Policy does not have attribute "{attr}".')
        self.inner_policy, self.attr = inner_policy, attr
        self.value_max, self.value_min, self.value_test = value_max, value_min, value_test
        self.nb_steps = nb_steps
        self.metrics_names = [f"mean_{attr}"]

    def select_action(self, q_values):
        slope = (self.value_min - self.value_max) / self.nb_steps
        value = max(self.value_min, self.value_max + slope * self.agent.step)
        value = value if self.agent.training else self.value_test
        setattr(self.inner_policy, self.attr, value)
        self.metrics = [value]
        return self.inner_policy.select_action(q_values=q_values)
