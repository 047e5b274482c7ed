"""What an agent remembers: the last steps, from which it learns in random order."""

import random
from collections import deque, namedtuple

import keras
import numpy as np

# In `state0`, `action` brought `reward` and led to `state1`, which may be the end.
Experience = namedtuple("Experience", "state0, action, reward, state1, terminal1")


class SequentialMemory:
    """The last `limit` steps in arrays: each observation is stored once, in its own type.

    A state is the last `window_length` observations of an episode, with zeros before its start
    (unless `ignore_episode_boundaries`). As in keras-rl, an episode is followed by one entry more:
    the observation with which it ended, where no action was taken.

    An observation may also be a dict or list of arrays; so is a state, then. keras-rl has Python
    lists, and copies each window; a million frames of 84x84 pixels take 7 GB here.
    """

    def __init__(self, limit, window_length, ignore_episode_boundaries=False):
        self.limit, self.window_length = limit, window_length
        self.ignore_episode_boundaries = ignore_episode_boundaries
        self.recent = deque(maxlen=window_length - 1)  # observations of the running episode
        self.ended = False  # is the next observation the one with which the episode ended?
        self.observations = None  # made when the first observation shows its shape
        self.actions = np.zeros(limit, "int64")
        self.rewards = np.zeros(limit)
        self.terminals = np.zeros(limit, bool)  # nothing follows
        self.no_action = np.zeros(limit, bool)  # the observation that an episode ended with
        self.times = np.full(limit, -1)  # steps since the start of the episode
        self.appended = 0  # entries ever

    @property
    def nb_entries(self):
        return min(self.appended, self.limit)

    def append(self, observation, action, reward, terminal, training=True, truncated=False):
        """Remember one step; in tests (`training=False`) only what the next states are made of.

        keras-rl has no `truncated`: there, nothing is worth anything after a time limit, either.
        """
        no_action, self.ended = self.ended, terminal
        if no_action and not self.ignore_episode_boundaries:
            self.recent.clear()
        else:
            self.recent.append(observation)
        if not training:
            return
        if self.observations is None:
            self.observations = keras.tree.map_structure(
                lambda x: np.zeros((self.limit, *np.shape(x)), np.asarray(x).dtype), observation
            )
        i = self.appended % self.limit
        rings = keras.tree.flatten(self.observations)
        for ring, value in zip(rings, keras.tree.flatten(observation), strict=True):
            ring[i] = value
        self.actions[i], self.rewards[i] = action, reward
        self.terminals[i] = terminal and not truncated
        self.times[i] = 0 if self.no_action[i - 1] else self.times[i - 1] + 1
        self.no_action[i] = no_action
        self.appended += 1

    def cut_episode(self):
        """The episode does not go on: what is appended next begins another."""
        self.recent.clear()
        self.ended = False
        self.no_action[(self.appended - 1) % self.limit] = self.appended > 0

    def get_recent_state(self, current_observation):
        """The state that ends with `current_observation`, which is not yet appended."""
        state = [*self.recent, current_observation]
        nothing = keras.tree.map_structure(np.zeros_like, current_observation)
        state = [nothing] * (self.window_length - len(state)) + state
        return keras.tree.map_structure(lambda *parts: np.stack(parts), *state)

    def sample(self, batch_size, batch_idxs=None):
        """`batch_size` steps as a list of Experience; `batch_idxs`: which, from the oldest, 0."""
        batch = self.sample_arrays(batch_size, batch_idxs)
        picked = [keras.tree.map_structure(lambda x, i=i: x[i], batch) for i in range(batch_size)]
        return [one._replace(terminal1=bool(one.terminal1)) for one in picked]

    def sample_arrays(self, batch_size, batch_idxs=None):
        """The same as one Experience of arrays (batch_size, …), which is faster."""
        low, high = self.window_length, self.nb_entries - 1  # a step needs the one after it
        if high <= low or (high == low + 1 and self.no_action[self._row(low)]):
            raise ValueError("not enough entries in the memory")
        if batch_idxs is None and high - low >= batch_size:
            batch_idxs = random.sample(range(low, high), batch_size)
        elif batch_idxs is None:
            batch_idxs = random.choices(range(low, high), k=batch_size)
        rows = self._row(np.array(batch_idxs))
        while (wrong := self.no_action[rows]).any():  # others in their place
            rows[wrong] = self._row(np.array(random.choices(range(low, high), k=wrong.sum())))
        state0, state1 = self._states(rows), self._states((rows + 1) % self.limit)
        actions, rewards, terminals = self.actions[rows], self.rewards[rows], self.terminals[rows]
        return Experience(state0, actions, rewards, state1, terminals)

    def _row(self, index):
        return (self.appended - self.nb_entries + index) % self.limit

    def _states(self, rows):
        """The states that end with the entries `rows`: (n, window_length, *observation)."""
        back = np.arange(self.window_length)[::-1]
        before_start = back > self.times[rows][:, None]

        def windows(ring):
            states = ring[(rows[:, None] - back) % self.limit]
            if not self.ignore_episode_boundaries:
                states[before_start] = 0
            return states

        return keras.tree.map_structure(windows, self.observations)
