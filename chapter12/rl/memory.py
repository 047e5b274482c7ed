"""What an agent remembers: a ring of the last steps, from which it learns in random order."""

from typing import NamedTuple

import numpy as np


class Experience(NamedTuple):
    """A batch of steps: what was seen, what was done, what came of it."""

    state0: np.ndarray  # (batch, window_length, *observation)
    action: np.ndarray  # int32 (batch,)
    reward: np.ndarray  # float32 (batch,)
    state1: np.ndarray  # as state0, one step later
    terminal1: np.ndarray  # bool (batch,): the episode ended there, nothing can follow


class SequentialMemory:
    """The last `limit` steps, each observation stored once, in arrays of fixed size.

    A state is the last `window_length` observations of its episode; the ones before its start are
    zeros. keras-rl keeps Python lists and copies each window; a million frames of 84x84 pixels
    take 7 GB here.

    An episode leaves one entry more than it has steps: its last observation, after which no action
    was taken. A step that was cut off by a time limit needs it, since its value goes on.

    Args:
        limit: how many entries are kept; the oldest make room.
        window_length: observations in a state.
        seed: of the order in which experiences are drawn.
    """

    def __init__(self, limit, window_length=1, seed=None):
        if limit <= window_length + 1:
            raise ValueError(f"limit is {limit}: it must be above window_length + 1")
        self.limit, self.window_length = limit, window_length
        self.rng = np.random.default_rng(seed)
        self.observations = None  # made when the first observation shows its shape
        self.actions = np.zeros(limit, dtype="int32")
        self.rewards = np.zeros(limit, dtype="float32")
        self.terminals = np.zeros(limit, dtype=bool)
        self.lasts = np.zeros(limit, dtype=bool)  # last observation of an episode: no action
        self.times = np.zeros(limit, dtype="int32")  # steps since the start of the episode
        self.appended = 0  # entries ever; the newest stands at (appended - 1) % limit

    @property
    def nb_entries(self):
        """How many entries are held."""
        return min(self.appended, self.limit)

    def append(self, observation, action, reward, terminal):
        """Remember one step: in `observation`, `action` brought `reward` and maybe the end.

        Args:
            terminal: the environment's `terminated`, not its `truncated`.
        """
        self._write(observation, action, reward, terminal, last=False)

    def append_last(self, observation):
        """Remember the observation with which an episode ended, however it did."""
        self._write(observation, 0, 0.0, False, last=True)

    def _write(self, observation, action, reward, terminal, last):
        observation = np.asarray(observation)
        if self.observations is None:
            dtype = "uint8" if observation.dtype == np.uint8 else "float32"
            self.observations = np.zeros((self.limit, *observation.shape), dtype)
        i, before = self.appended % self.limit, (self.appended - 1) % self.limit
        first = self.appended == 0 or self.lasts[before]
        self.times[i] = 0 if first else self.times[before] + 1
        self.observations[i] = observation
        self.actions[i], self.rewards[i] = action, reward
        self.terminals[i], self.lasts[i] = terminal, last
        self.appended += 1

    def get_recent_state(self, current_observation):
        """The state that ends with `current_observation`, which is not yet in memory."""
        current = np.asarray(current_observation)
        state = np.zeros((self.window_length, *current.shape), current.dtype)
        state[-1] = current
        newest = (self.appended - 1) % self.limit
        if self.window_length > 1 and self.appended and not self.lasts[newest]:
            count = min(self.window_length - 1, self.times[newest] + 1, self.nb_entries)
            rows = (newest - np.arange(count)[::-1]) % self.limit
            state[-1 - count : -1] = self.observations[rows]
        return state

    def sample(self, batch_size):
        """Draw steps at random, with replacement.

        Returns:
            Experience of arrays.

        Raises:
            ValueError: there is no complete step yet.
        """
        # The newest entry has no successor yet; windows of the oldest reach into lost frames.
        start = self.window_length - 1 if self.appended > self.limit else 0
        stop = self.nb_entries - 1
        oldest = self.appended - self.nb_entries
        positions = (oldest + np.arange(start, stop)) % self.limit if stop - start < 100 else None
        if stop <= start or (positions is not None and self.lasts[positions].all()):
            raise ValueError("the memory holds no complete step yet")
        rows = (oldest + self.rng.integers(start, stop, batch_size)) % self.limit
        while (wrong := self.lasts[rows]).any():
            rows[wrong] = (oldest + self.rng.integers(start, stop, wrong.sum())) % self.limit
        return Experience(
            self.windows(rows),
            self.actions[rows],
            self.rewards[rows],
            self.windows((rows + 1) % self.limit),
            self.terminals[rows],
        )

    def windows(self, rows):
        """The states that end with the entries `rows`: (n, window_length, *observation)."""
        if self.window_length == 1:
            return self.observations[rows][:, None]
        back = np.arange(self.window_length)[::-1]
        states = self.observations[(rows[:, None] - back) % self.limit]
        states[back > self.times[rows][:, None]] = 0  # before the episode began
        return states

    def get_state(self):
        """All that is held, as a dict of arrays, for a checkpoint."""
        held = self.nb_entries
        state = {"appended": np.int64(self.appended), "limit": np.int64(self.limit)}
        for name in ("observations", "actions", "rewards", "terminals", "lasts", "times"):
            array = getattr(self, name)
            if array is not None:
                state[name] = array[:held]
        return state

    def set_state(self, state):
        """Take over what `get_state` returned.

        Raises:
            ValueError: it is of a memory of another size.
        """
        if int(state["limit"]) != self.limit:
            raise ValueError(f"the checkpoint's memory holds {state['limit']} entries")
        self.appended = int(state["appended"])
        if "observations" in state:
            array = state["observations"]
            self.observations = np.zeros((self.limit, *array.shape[1:]), array.dtype)
        for name in ("observations", "actions", "rewards", "terminals", "lasts", "times"):
            if name in state:
                getattr(self, name)[: len(state[name])] = state[name]
