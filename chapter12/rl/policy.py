"""Policies: how to pick an action when the Q-values of all actions are known."""

import numpy as np


class Policy:
    """Picks an action. The agent sets `agent`, from which a policy reads the step and the mode."""

    agent = None

    def select_action(self, q_values):
        """The number of an action, given the Q-values (nb_actions,)."""
        raise NotImplementedError

    @property
    def metrics(self):
        """Figures for the log, by name."""
        return {}


class GreedyQPolicy(Policy):
    """Always the action of the highest Q-value."""

    def select_action(self, q_values):
        return int(np.argmax(q_values))


class EpsGreedyQPolicy(Policy):
    """A random action with probability `eps`, else the best one.

    Without the random ones an agent never learns what it has not tried.
    """

    def __init__(self, eps=0.1, seed=None):
        self.eps = eps
        self.rng = np.random.default_rng(seed)

    def select_action(self, q_values):
        if self.rng.random() < self.eps:
            return int(self.rng.integers(len(q_values)))
        return int(np.argmax(q_values))


class BoltzmannQPolicy(Policy):
    """Random, but the better an action the likelier: probabilities are softmax(q / tau).

    Args:
        tau: temperature; the lower, the greedier.
        clip: limits of q / tau, against overflow.
    """

    def __init__(self, tau=1.0, clip=(-500.0, 500.0), seed=None):
        self.tau, self.clip = tau, clip
        self.rng = np.random.default_rng(seed)

    def select_action(self, q_values):
        scaled = np.clip(np.asarray(q_values, dtype="float64") / self.tau, *self.clip)
        weights = np.exp(scaled - scaled.max())
        return int(self.rng.choice(len(q_values), p=weights / weights.sum()))


class LinearAnnealedPolicy(Policy):
    """Another policy, one attribute of which goes along a straight line while the agent trains.

    Args:
        inner_policy: the policy that picks.
        attr: which attribute of it, such as "eps".
        value_max, value_min: where it starts and ends. nb_steps: how many steps that takes.
        value_test: its value while the agent is tested.
    """

    def __init__(self, inner_policy, attr, value_max, value_min, value_test, nb_steps):
        if not hasattr(inner_policy, attr):
            raise ValueError(f"{type(inner_policy).__name__} has no attribute {attr}")
        self.inner_policy, self.attr = inner_policy, attr
        self.value_max, self.value_min, self.value_test = value_max, value_min, value_test
        self.nb_steps = nb_steps

    def get_current_value(self):
        """The attribute's value now: it follows from the agent's step, so a resumed run has it."""
        if not self.agent.training:
            return self.value_test
        slope = (self.value_min - self.value_max) / self.nb_steps
        return max(self.value_min, self.value_max + slope * self.agent.step)

    def select_action(self, q_values):
        setattr(self.inner_policy, self.attr, self.get_current_value())
        return self.inner_policy.select_action(q_values)

    @property
    def metrics(self):
        return {f"mean_{self.attr}": self.get_current_value()}
