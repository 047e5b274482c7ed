"""The deep Q-network of Mnih et al. (2015, Nature 518), with double and dueling variants."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from ..callbacks import CallbackList, EpisodeLogger, ProgressBar
from ..policy import EpsGreedyQPolicy, GreedyQPolicy
from ..processor import Processor


class DQNAgent:
    """Learns the Q-function of an environment with a Keras network, and acts by it.

    Args:
        model: keras.Model from states (n, window_length, *observation) to Q-values (n, nb_actions).
        nb_actions: how many actions there are.
        memory: a `SequentialMemory`. policy: how to act in training (default: epsilon-greedy).
        test_policy: how to act in tests (default: greedy).
        gamma: discount of the reward one step later.
        batch_size: experiences in a training step.
        nb_steps_warmup: steps before the first training step. train_interval: steps between two.
        target_model_update: below 1, the share of the network that goes into the target network at
            each training step (soft); from 1 on, after how many steps it is copied (hard).
        delta_clip: errors above it count linearly instead of squared (Huber loss).
        enable_double_dqn: let the network pick the next action and the target network value it
            (van Hasselt et al., 2016): less overestimation.
        enable_dueling_network: split the last layer into the state's value and the actions'
            advantages (Wang et al., 2016). dueling_type: "avg", "max" or "naive", what is taken off
            the advantages so that the split is unique (naive: nothing).
        processor: a `Processor`.
    """

    def __init__(
        self,
        model,
        nb_actions,
        memory,
        policy=None,
        test_policy=None,
        gamma=0.99,
        batch_size=32,
        nb_steps_warmup=1000,
        train_interval=1,
        target_model_update=10_000,
        delta_clip=np.inf,
        enable_double_dqn=False,
        enable_dueling_network=False,
        dueling_type="avg",
        processor=None,
    ):
        if keras.backend.backend() != "tensorflow":
            raise ValueError("chapter 12 needs the TensorFlow backend: unset KERAS_BACKEND")
        if tuple(model.output_shape[1:]) != (nb_actions,):
            raise ValueError(
                f"the network's output is {tuple(model.output_shape)}; expected (None, "
                f"{nb_actions}), one Q-value for each action"
            )
        if target_model_update < 0:
            raise ValueError(f"target_model_update is {target_model_update}; it cannot be negative")
        if enable_dueling_network:
            model = make_dueling(model, nb_actions, dueling_type)
        self.model, self.nb_actions, self.memory = model, nb_actions, memory
        self.policy = policy if policy is not None else EpsGreedyQPolicy()
        self.test_policy = test_policy if test_policy is not None else GreedyQPolicy()
        for part in (self.policy, getattr(self.policy, "inner_policy", None), self.test_policy):
            if part is not None:
                part.agent = self
        self.gamma, self.batch_size = gamma, batch_size
        self.nb_steps_warmup, self.train_interval = nb_steps_warmup, train_interval
        self.target_model_update = target_model_update
        self.delta_clip, self.enable_double_dqn = delta_clip, enable_double_dqn
        self.processor = processor if processor is not None else Processor()
        self.step = self.episode = 0
        self.training = self.compiled = False

    def compile(self, optimizer, metrics=()):
        """Get ready to train.

        Args:
            optimizer: a keras.optimizers.Optimizer.
            metrics: kept for keras-rl's sake; loss, mean absolute error and mean Q-value are
                always logged.
        """
        self.optimizer = optimizer
        self.optimizer.build(self.model.trainable_variables)
        self.target_model = keras.models.clone_model(self.model)
        self.update_target_model()
        shape, dtype = self.model.input_shape[1:], self.model.inputs[0].dtype
        batch = (self.batch_size,)
        # XLA makes one kernel of these many small operations; for convolutions on a CPU it is slow.
        small = not any(isinstance(layer, layers.Conv2D) for layer in self.model.layers)
        # Traced once, here: to look up the trace by its arguments costs more than these networks.
        self._q_values = tf.function(
            lambda states: self.model(states, training=False)[0], jit_compile=small
        ).get_concrete_function(tf.TensorSpec((1, *shape), dtype))
        self._train_step = tf.function(self._train, jit_compile=small).get_concrete_function(
            tf.TensorSpec((*batch, *shape), dtype),
            tf.TensorSpec(batch, "int32"),
            tf.TensorSpec(batch, "float32"),
            tf.TensorSpec((*batch, *shape), dtype),
            tf.TensorSpec(batch, "bool"),
        )
        self.compiled = True

    # --- acting -------------------------------------------------------------------------------

    def compute_q_values(self, state):
        """Q-values (nb_actions,) of one state (window_length, *observation).

        A compiled call of the network: `predict` builds a data pipeline each time.
        """
        return self._q_values(tf.convert_to_tensor(state[None], self.model.inputs[0].dtype)).numpy()

    def forward(self, observation):
        """The action for an observation, by the policy of the mode."""
        state = self.memory.get_recent_state(observation)
        policy = self.policy if self.training else self.test_policy
        return policy.select_action(self.compute_q_values(state))

    # --- learning -----------------------------------------------------------------------------

    def compute_targets(self, reward, state1, terminal1):
        """What the Q-values of the actions taken should be: reward + gamma * value afterwards."""
        next_q = self.target_model(state1, training=False)
        if self.enable_double_dqn:
            picked = tf.argmax(self.model(state1, training=False), axis=1)
            value = tf.gather(next_q, picked, axis=1, batch_dims=1)
        else:
            value = tf.reduce_max(next_q, axis=1)
        return reward + self.gamma * tf.where(terminal1, 0.0, value)

    def _train(self, state0, action, reward, state1, terminal1):
        """One training step: losses, gradients, weights and a soft update, in one compiled call."""
        targets = self.compute_targets(reward, state1, terminal1)
        with tf.GradientTape() as tape:
            q = self.model(state0, training=True)
            errors = targets - tf.gather(q, action, axis=1, batch_dims=1)
            size = tf.abs(errors)
            losses = tf.square(errors) / 2
            if np.isfinite(self.delta_clip):
                linear = self.delta_clip * (size - self.delta_clip / 2)
                losses = tf.where(size < self.delta_clip, losses, linear)
            loss = tf.reduce_mean(losses)
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        if self.target_model_update < 1:
            share = self.target_model_update
            for target, variable in zip(self.target_model.weights, self.model.weights, strict=True):
                target.assign(target + share * (variable - target))
        return tf.stack([loss, tf.reduce_mean(size), tf.reduce_mean(tf.reduce_max(q, axis=1))])

    def update_target_model(self):
        """Copy the network into the target network."""
        self.target_model.set_weights(self.model.get_weights())

    def backward(self):
        """Learn, if this step is one to learn at.

        Returns:
            Metrics by name; empty when nothing was learned.
        """
        metrics = {}
        if self.step > self.nb_steps_warmup and self.step % self.train_interval == 0:
            batch = self.memory.sample(self.batch_size)
            dtype = self.model.inputs[0].dtype
            # Left on the device until somebody asks: fetching them would wait for the step.
            values = self._train_step(
                tf.convert_to_tensor(batch.state0, dtype),
                tf.convert_to_tensor(batch.action),
                tf.convert_to_tensor(batch.reward),
                tf.convert_to_tensor(batch.state1, dtype),
                tf.convert_to_tensor(batch.terminal1),
            )
            metrics = {"values": values}
        if self.target_model_update >= 1 and self.step % int(self.target_model_update) == 0:
            self.update_target_model()
        return metrics

    # --- running ------------------------------------------------------------------------------

    def fit(
        self,
        env,
        nb_steps,
        callbacks=None,
        verbose=1,
        visualize=False,
        nb_max_episode_steps=None,
        seed=None,
    ):
        """Train until the agent has taken `nb_steps` steps, those before a resumption included.

        Args:
            env: a gymnasium environment with a discrete action space.
            verbose: 0 silent, 1 a progress bar, 2 a line for each episode.
            visualize: call `env.render()` at each step.
            nb_max_episode_steps: cut episodes off after this many.
            seed: of the environment's first episode.
        """
        if not self.compiled:
            raise RuntimeError("compile the agent before you fit it")
        callbacks = list(callbacks or [])
        callbacks += {1: [ProgressBar()], 2: [EpisodeLogger()]}.get(verbose, [])
        return self._run(env, callbacks, True, visualize, nb_max_episode_steps, seed, nb_steps)

    def test(
        self,
        env,
        nb_episodes=1,
        callbacks=None,
        verbose=1,
        visualize=False,
        nb_max_episode_steps=None,
        seed=None,
    ):
        """Play `nb_episodes` without learning; returns the list of their rewards."""
        if not self.compiled:
            raise RuntimeError("compile the agent before you test it")
        callbacks = list(callbacks or []) + ([EpisodeLogger()] if verbose else [])
        saved = self.step, self.episode, self.memory, self.training
        # Windows come from the memory: the test has its own, and leaves the training's alone.
        self.memory = type(self.memory)(
            max(10, 2 * self.memory.window_length + 2), self.memory.window_length
        )
        self.step = self.episode = 0
        try:
            return self._run(
                env, callbacks, False, visualize, nb_max_episode_steps, seed, None, nb_episodes
            )
        finally:
            self.step, self.episode, self.memory, self.training = saved

    def _run(
        self, env, callbacks, training, visualize, max_steps, seed, nb_steps=None, nb_episodes=None
    ):
        """Act, and learn if `training`, until there were enough steps or episodes."""
        if getattr(env.action_space, "n", None) != self.nb_actions:
            raise ValueError(
                f"the environment's action space is {env.action_space}; this agent needs "
                f"Discrete({self.nb_actions})"
            )
        self.training = training
        callbacks = CallbackList(callbacks, self, env, nb_steps, nb_episodes)
        callbacks.on_train_begin()
        rewards = []
        try:
            while (nb_steps is None or self.step < nb_steps) and (
                nb_episodes is None or len(rewards) < nb_episodes
            ):
                rewards.append(
                    self._run_episode(env, callbacks, visualize, max_steps, seed, nb_steps)
                )
                seed = None  # the environment goes on from its first seed by itself
        finally:
            self.training = False
            callbacks.on_train_end()
        return rewards

    def _run_episode(self, env, callbacks, visualize, max_steps, seed, nb_steps):
        """One episode; returns the sum of the environment's rewards."""
        observation, _ = env.reset(seed=seed)
        observation = self.processor.process_observation(observation)
        callbacks.on_episode_begin(self.episode)
        total, steps, learned, done = 0.0, 0, [], False
        while not done and (nb_steps is None or self.step < nb_steps):
            action = self.forward(observation)
            next_observation, reward, terminated, truncated, info = env.step(action)
            if visualize:
                env.render()
            total, steps = total + float(reward), steps + 1
            truncated = truncated or steps == max_steps
            self.memory.append(
                observation, action, self.processor.process_reward(reward), terminated
            )
            observation = self.processor.process_observation(next_observation)
            done = terminated or truncated
            self.step += 1
            if done:
                self.memory.append_last(observation)
            if self.training and (metrics := self.backward()):
                learned.append(metrics["values"])
            callbacks.on_step_end(
                self.step, {"reward": float(reward), "info": info, "episode": self.episode}
            )
        if not done:  # the last step of all: the next run starts a new episode
            self.memory.append_last(observation)
        logs = {"episode_reward": total, "nb_episode_steps": steps, "nb_steps": self.step}
        if learned:
            names = ("loss", "mae", "mean_q")
            logs |= dict(zip(names, np.mean(learned, axis=0).astype(float).tolist(), strict=True))
        if self.training:
            logs |= self.policy.metrics
        self.episode += 1
        callbacks.on_episode_end(self.episode, logs)
        return total

    # --- files --------------------------------------------------------------------------------

    def save_weights(self, filepath, overwrite=True):
        """Write the network's weights to a `.weights.h5` file."""
        self.model.save_weights(filepath, overwrite=overwrite)

    def load_weights(self, filepath):
        """Read the network's weights.

        Raises:
            OSError: no such file. ValueError: it does not fit this network.
        """
        if not Path(filepath).is_file():
            raise OSError(f"{filepath} does not exist")
        try:
            self.model.load_weights(filepath)
        except Exception as error:  # many kinds, depending on what the file is
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{filepath} does not hold weights of this network ({reason})") from (
                error
            )
        if self.compiled:
            self.update_target_model()

    def save_checkpoint(self, folder):
        """Write all that training needs to go on: networks, optimizer, memory, counters.

        A kill in the midst of it leaves the checkpoint before untouched.
        """
        folder = Path(folder)
        fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        variables = {f"model_{i}": w for i, w in enumerate(self.model.get_weights())}
        variables |= {f"target_{i}": w for i, w in enumerate(self.target_model.get_weights())}
        variables |= {f"optimizer_{i}": v.numpy() for i, v in enumerate(self.optimizer.variables)}
        np.savez(fresh / "variables.npz", **variables)
        np.savez(fresh / "memory.npz", **self.memory.get_state())
        counters = {"step": self.step, "episode": self.episode, "random": {}}
        for name, rng in self._generators().items():
            counters["random"][name] = rng.bit_generator.state
        (fresh / "counters.json").write_text(json.dumps(counters))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
        shutil.rmtree(old, ignore_errors=True)

    def load_checkpoint(self, folder):
        """Go on from `save_checkpoint`; returns the step, or 0 if there is no checkpoint.

        Raises:
            ValueError: it is damaged, or of another network or memory.
        """
        folder = Path(folder)
        if not folder.exists():  # killed between the two renamings
            folder = folder.with_name(folder.name + ".old")
        if not folder.exists():
            return 0
        try:
            counters = json.loads((folder / "counters.json").read_text())
            with np.load(folder / "variables.npz", allow_pickle=False) as arrays:
                parts = {
                    "model": self.model.weights,
                    "target": self.target_model.weights,
                    "optimizer": self.optimizer.variables,
                }
                for name, variables in parts.items():
                    for i, variable in enumerate(variables):
                        variable.assign(arrays[f"{name}_{i}"])
            with np.load(folder / "memory.npz", allow_pickle=False) as arrays:
                self.memory.set_state({name: arrays[name] for name in arrays.files})
            for name, rng in self._generators().items():
                rng.bit_generator.state = counters["random"][name]
            self.step, self.episode = counters["step"], counters["episode"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"the checkpoint {folder} cannot be used ({error}); delete it to start afresh"
            ) from error
        return self.step

    def _generators(self):
        """The random generators in use, by name."""
        inner = getattr(self.policy, "inner_policy", self.policy)
        found = {"memory": self.memory.rng, "policy": getattr(inner, "rng", None)}
        return {name: rng for name, rng in found.items() if rng is not None}


def make_dueling(model, nb_actions, dueling_type):
    """`model` with its last layer replaced by a value and advantages: Q = V + A - something."""
    hidden = model.layers[-2].output
    y = layers.Dense(nb_actions + 1, name="value_and_advantages")(hidden)
    value, advantages = y[:, :1], y[:, 1:]
    if dueling_type == "avg":
        outputs = value + advantages - keras.ops.mean(advantages, axis=1, keepdims=True)
    elif dueling_type == "max":
        outputs = value + advantages - keras.ops.max(advantages, axis=1, keepdims=True)
    elif dueling_type == "naive":
        outputs = value + advantages
    else:
        raise ValueError(f'dueling_type is "{dueling_type}"; expected "avg", "max" or "naive"')
    return keras.Model(model.inputs, outputs, name=f"{model.name}_dueling")
