"""The deep Q-network of Mnih et al. (2015, Nature 518); double by default."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import keras
import numpy as np
from keras import layers, ops

from ..core import Agent, Processor
from ..memory import SequentialMemory
from ..policy import EpsGreedyQPolicy, GreedyQPolicy, Policy
from ..util import clone_model, huber_loss


@dataclass(eq=False)
class DQNAgent(Agent):
    """Learns the Q-function of an environment with a Keras network, and acts by it."""

    model: keras.Model  # states (n, window_length, *observation) to Q-values (n, nb_actions)
    policy: Policy | None = None  # to act in training; None: epsilon-greedy
    test_policy: Policy | None = None  # in tests; None: greedy
    # The network picks the next action, the target network values it (van Hasselt et al., 2016):
    # less overestimation. On by default, as in keras-rl 0.3.1 to 0.4.2.
    enable_double_dqn: bool = True
    nb_actions: int | None = None
    memory: SequentialMemory | None = None
    gamma: float = 0.99  # discount of the reward one step later
    batch_size: int = 32  # experiences in a training step
    nb_steps_warmup: int = 1000  # before the first, also where a training goes on: no memory yet
    train_interval: int = 1  # steps between two of these
    # Below 1, the share of the network that goes into the target network at each training step;
    # from 1 on, after how many steps it is copied.
    target_model_update: float = 10000
    delta_clip: float = np.inf  # errors above it count linearly, not squared (Huber loss)
    processor: Processor | None = None

    def __post_init__(self):
        shape = tuple(self.model.output_shape)
        if shape[1:] != (self.nb_actions,):
            raise ValueError(f"the network has outputs {shape}, not {self.nb_actions}")
        super().__init__(self.processor)
        self.policy = self.policy or EpsGreedyQPolicy()
        self.test_policy = self.test_policy or GreedyQPolicy()
        self.policy.agent = self.test_policy.agent = self

    def compile(self, optimizer, metrics=()):
        """optimizer: Keras's, or its name. metrics: as they come; loss, mae and mean_q are logged.

        With TensorFlow, acting and learning are one compiled call each. With another backend, or
        several inputs, they are `predict_on_batch` and `train_on_batch`.
        """
        self.optimizer = keras.optimizers.get(optimizer)
        self.target_model = clone_model(self.model)
        self.model.compile(self.optimizer, loss="mse")  # to be saved with its optimizer
        if keras.backend.backend() == "tensorflow" and len(self.model.inputs) == 1:
            self._compile_with_tensorflow()
        else:
            self._compile_with_keras()
        self.compiled = True

    @property
    def metrics_names(self):
        return ["loss", "mae", "mean_q", *self.policy.metrics_names]

    def compute_q_values(self, state):
        """Q-values (nb_actions,) of one state (window_length, *observation)."""
        batch = keras.tree.map_structure(lambda x: x[None], state)
        return self._q_values(self.processor.process_state_batch(batch))[0]

    def forward(self, observation):
        q_values = self.compute_q_values(self.memory.get_recent_state(observation))
        policy = self.policy if self.training else self.test_policy
        self.recent_observation = observation
        self.recent_action = policy.select_action(q_values=q_values)
        return self.recent_action

    def backward(self, reward, terminal):
        seen = self.recent_observation, self.recent_action, reward, terminal
        self.memory.append(*seen, training=self.training, truncated=self.truncated)
        metrics = [np.nan] * len(self.metrics_names)
        if not self.training:
            return metrics
        if self.step > self.first_update and self.step % self.train_interval == 0:
            batch = self.memory.sample_arrays(self.batch_size)
            metrics = [*self._train_on_batch(batch), *self.policy.metrics]
        if self.target_model_update >= 1 and self.step % int(self.target_model_update) == 0:
            self.update_target_model_hard()
        return metrics

    def _on_train_begin(self):
        self.memory.cut_episode()
        self.first_update = self.step + self.nb_steps_warmup

    def _loss(self, y_true, q_values):
        """The Huber loss of the actions taken; `y_true` (n, 2): targets, actions."""
        return huber_loss(y_true[:, 0], self._taken(y_true, q_values), self.delta_clip)

    def _taken(self, y_true, q_values):
        actions = ops.cast(y_true[:, 1:], "int32")
        return ops.take_along_axis(q_values, actions, axis=1)[:, 0]

    def _mae(self, y_true, q_values):
        return ops.abs(y_true[:, 0] - self._taken(y_true, q_values))

    def _mean_q(self, y_true, q_values):
        return ops.max(q_values, axis=1)

    def _compile_with_keras(self):
        """`_q_values` of states, and `_train_on_batch` with an Experience of arrays."""
        inputs = self.model.input if len(self.model.inputs) > 1 else self.model.inputs[0]
        trainable_model = keras.Model(inputs, self.model.outputs[0])
        trainable_model.compile(self.optimizer, self._loss, metrics=[self._mae, self._mean_q])

        def train_on_batch(batch):
            state0, state1 = map(self.processor.process_state_batch, (batch.state0, batch.state1))
            next_q = np.asarray(self.target_model.predict_on_batch(state1))
            picked = self._q_values(state1) if self.enable_double_dqn else next_q
            value = next_q[np.arange(self.batch_size), picked.argmax(axis=1)]
            target = batch.reward + self.gamma * np.where(batch.terminal1, 0.0, value)
            y_true = np.stack([target, batch.action], axis=1).astype("float32")
            trainable_model.reset_metrics()
            logs = trainable_model.train_on_batch(state0, y_true, return_dict=True)
            self.update_target_model_softly()
            return [float(logs[name]) for name in ("loss", "_mae", "_mean_q")]

        self._q_values = lambda states: np.asarray(self.model.predict_on_batch(states))
        self._train_on_batch = train_on_batch

    def _compile_with_tensorflow(self):
        """The same as one compiled call each."""
        import tensorflow as tf

        shape, dtype = self.model.inputs[0].shape[1:], self.model.inputs[0].dtype

        def learn(state0, state1, taken):  # taken (n, 3): action, reward, terminal
            action, reward, terminal = tf.unstack(taken, axis=1)
            next_q = self.target_model(state1, training=False)
            picked = self.model(state1, training=False) if self.enable_double_dqn else next_q
            value = tf.gather(next_q, tf.argmax(picked, axis=1), axis=1, batch_dims=1)
            target = reward + self.gamma * (1 - terminal) * value
            y_true = tf.stack([target, action], axis=1)
            with tf.GradientTape() as tape:
                q_values = self.model(state0, training=True)
                loss = tf.reduce_mean(self._loss(y_true, q_values))
            variables = self.model.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            self.update_target_model_softly()
            metrics = [self._mae(y_true, q_values), self._mean_q(y_true, q_values)]
            return tf.stack([loss, *map(tf.reduce_mean, metrics)])

        # XLA makes one kernel of these many small operations; for convolutions on a CPU it is slow.
        small = not any(isinstance(layer, layers.Conv2D) for layer in self.model.layers)
        self.optimizer.build(self.model.trainable_variables)
        one, many = (tf.TensorSpec((n, *shape), dtype) for n in (1, self.batch_size))
        taken = tf.TensorSpec((self.batch_size, 3), "float32")
        # Traced once, here: to look the trace up costs more than these networks.
        act = tf.function(self.model, jit_compile=small).get_concrete_function(one)
        learn = tf.function(learn, jit_compile=small).get_concrete_function(many, many, taken)

        def train_on_batch(batch):
            states = map(self.processor.process_state_batch, (batch.state0, batch.state1))
            states = [tf.convert_to_tensor(state, dtype) for state in states]
            taken = np.stack([batch.action, batch.reward, batch.terminal1], axis=1, dtype="float32")
            return learn(*states, tf.convert_to_tensor(taken)).numpy().tolist()

        self._q_values = lambda states: act(tf.convert_to_tensor(states, dtype)).numpy()
        self._train_on_batch = train_on_batch

    def update_target_model_softly(self):
        if self.target_model_update < 1:
            for target, variable in zip(self.target_model.weights, self.model.weights, strict=True):
                target.assign(target + self.target_model_update * (variable - target))

    def update_target_model_hard(self):
        self.target_model.set_weights(self.model.get_weights())

    def save_weights(self, filepath, overwrite=False):
        """Write the network's weights, as Keras 3 does; the suffix may be the book's, `.h5f`."""
        if Path(filepath).exists() and not overwrite:
            raise FileExistsError(f"{filepath} exists; overwrite=True replaces it")
        new = f"{filepath}_new.weights.h5"
        self.model.save_weights(new)
        Path(new).replace(filepath)

    def load_weights(self, filepath):
        """Read them from `.weights.h5`, `.keras`, or `.h5f`, also keras-rl's own, of Keras 2."""
        path = Path(filepath)
        with TemporaryDirectory() as folder:
            if path.suffix != ".keras":  # Keras tells kinds of files by their names
                with h5py.File(path) as file:
                    old = "layer_names" in file.attrs or "model_weights" in file
                path = shutil.copy(path, Path(folder, "old.h5" if old else "new.weights.h5"))
            self.model.load_weights(path)
        if self.compiled:
            self.update_target_model_hard()
