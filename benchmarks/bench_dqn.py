"""Chapter 12: environment steps per second, two ways through Keras's calls against ours.

    python benchmarks/bench_dqn.py                    # about 3 minutes on 2 cores
    python benchmarks/bench_dqn.py --steps 20         # quick look

The plain way: `predict` for each action, `predict` of the target network for each training step,
and `train_on_batch` on the network with a mask for the actions that were not taken. keras-rl's way:
the same with `predict_on_batch`, which builds no data pipeline. Ours: chapter12/rl/agents/dqn.py,
one compiled call to act and one to learn. Environment, network, memory, batch size and how often it
learns are the same. All are warmed up; then they take turns.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chapter12"))

import dqn_cartpole
import dqn_lunar_lander
import keras
import numpy as np
import tensorflow as tf
from common import record
from rl.agents.dqn import DQNAgent
from tqdm import tqdm


class PredictAgent(DQNAgent):
    """Acts and learns through Keras's own calls."""

    method = "predict"

    def compile(self, optimizer, metrics=()):
        """As in keras-rl: a second model, whose output is the Q-value of the action taken."""
        super().compile(optimizer, metrics)
        mask = keras.Input((self.nb_actions,))
        taken = keras.ops.sum(self.model.output * mask, axis=1)
        self.trainable_model = keras.Model([*self.model.inputs, mask], taken)
        loss = keras.losses.Huber(self.delta_clip) if np.isfinite(self.delta_clip) else "mse"
        self.trainable_model.compile(optimizer, loss, metrics=["mae"])
        self.soft_update = tf.function(self.update_softly)

    def update_softly(self):
        """keras-rl, too, has this in a compiled function."""
        for target, variable in zip(self.target_model.weights, self.model.weights, strict=True):
            target.assign(target + self.target_model_update * (variable - target))

    def predict(self, model, states):
        """Q-values (n, nb_actions) as an array."""
        if self.method == "predict":
            return model.predict(states, verbose=0)
        return model.predict_on_batch(states)

    def compute_q_values(self, state):
        return self.predict(self.model, state[None])[0]

    def backward(self):
        if self.step <= self.nb_steps_warmup or self.step % self.train_interval:
            return {}
        batch = self.memory.sample(self.batch_size)
        rows = np.arange(self.batch_size)
        next_q = self.predict(self.target_model, batch.state1)
        picked = self.predict(self.model, batch.state1) if self.enable_double_dqn else next_q
        value = next_q[rows, picked.argmax(axis=1)]
        targets = batch.reward + self.gamma * np.where(batch.terminal1, 0.0, value)
        mask = np.eye(self.nb_actions, dtype="float32")[batch.action]
        values = self.trainable_model.train_on_batch([batch.state0, mask], targets)
        self.soft_update()
        return {"values": np.array([*values, 0.0])}


class KerasRLAgent(PredictAgent):
    """The same with the calls that build no data pipeline, as in keras-rl."""

    method = "predict_on_batch"


WAYS = {
    "predict": (PredictAgent, 1),
    "predict_on_batch, keras-rl": (KerasRLAgent, 2),
    "ours": (DQNAgent, 10),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="of the slowest way (default: 100)")
    parser.add_argument("--turns", type=int, default=5, help="default: 5")
    args = parser.parse_args()
    for script in (dqn_cartpole, dqn_lunar_lander):
        agents, speeds = {}, {name: [] for name in WAYS}
        for name, (agent_class, _) in WAYS.items():
            keras.utils.set_random_seed(1)
            script.DQNAgent = agent_class
            agents[name] = script.build_agent(seed=1)
            agents[name].nb_steps_warmup = 100
            agents[name].fit(script.make_env(), nb_steps=140, verbose=0, seed=1)
        for _ in tqdm(range(args.turns), desc=script.ENV_NAME, unit="turn"):
            for name, agent in agents.items():
                steps = args.steps * WAYS[name][1]
                env = script.make_env()
                start = time.perf_counter()
                agent.fit(env, nb_steps=agent.step + steps, verbose=0, seed=agent.step)
                speeds[name].append(steps / (time.perf_counter() - start))
        print(f"{script.ENV_NAME}, steps per second, median of {args.turns} (lowest to highest):")
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        for name, values in speeds.items():
            print(f"  {name:<27} {medians[name]:8.1f}  ({min(values):.1f} to {max(values):.1f})")
        for name in list(WAYS)[:2]:
            print(f"  ratio to {name}: {medians['ours'] / medians[name]:.1f}")
        record(
            f"chapter 12, DQN: training in {script.ENV_NAME}",
            "steps/s",
            speeds["predict_on_batch, keras-rl"],  # the book's, the faster of the two
            speeds["ours"],
        )


if __name__ == "__main__":
    main()
