"""Teach a deep Q-network to play Breakout from the pixels, with DeepMind's network.

Book: chapter 12, whose repository carries this example ("easily extended to Atari problems").

    python chapter12/dqn_breakout.py                        # a GPU, a day or two
    python chapter12/dqn_breakout.py --evaluate --render    # to see it play
    python chapter12/dqn_breakout.py --nb-steps 50000 --memory-limit 100000 --run-dir runs/short

Network and settings are those of Mnih et al. (2015), but for Adam in place of RMSProp and double
Q-learning.
"""

import argparse
import random
import sys
from pathlib import Path

import gymnasium
import keras
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, TransformReward
from keras import layers
from rl.agents.dqn import DQNAgent
from rl.callbacks import FileLogger
from rl.logs import read_log
from rl.memory import SequentialMemory
from rl.policy import EpsGreedyQPolicy, LinearAnnealedPolicy
from rl.runs import KeepNetworks, compare, open_run, write_metrics


def make_env(training=False, render_mode=None):
    """Grey frames (84, 84), each the maximum of two, four to an action, a random start.

    In training rewards count as 1, and a lost life ends the episode (then gymnasium, unlike the
    paper, begins a new game). Windows of four frames are the memory's: FrameStackObservation would
    have it keep each frame four times, 28 GB.
    """
    import ale_py

    gymnasium.register_envs(ale_py)
    env = gymnasium.make(
        "ALE/Breakout-v5", frameskip=1, repeat_action_probability=0, render_mode=render_mode
    )
    env = AtariPreprocessing(env, terminal_on_life_loss=training)
    return TransformReward(env, np.sign) if training else env


def build_model(num_actions=4):
    """DeepMind's network: frames (n, 4, 84, 84), 0-255, to Q-values (n, num_actions)."""
    inputs = keras.Input(shape=(4, 84, 84), name="frames")
    x = layers.Permute((2, 3, 1), name="frames_last")(inputs)
    x = layers.Rescaling(1 / 255, name="rescale")(x)
    x = layers.Conv2D(32, (8, 8), strides=4, activation="relu", name="conv1")(x)
    x = layers.Conv2D(64, (4, 4), strides=2, activation="relu", name="conv2")(x)
    x = layers.Conv2D(64, (3, 3), strides=1, activation="relu", name="conv3")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation="relu", name="fc1")(x)
    outputs = layers.Dense(num_actions, activation="linear", name="q_values")(x)
    return keras.Model(inputs=inputs, outputs=outputs, name="dqn_breakout")


def build_agent(model, memory_limit=1000000):
    """The paper's agent, compiled; with a smaller memory it learns sooner."""
    policy = LinearAnnealedPolicy(
        EpsGreedyQPolicy(),
        attr="eps",
        value_max=1,
        value_min=0.1,
        value_test=0.05,
        nb_steps=memory_limit,
    )
    dqn = DQNAgent(
        model=model,
        nb_actions=4,
        memory=SequentialMemory(limit=memory_limit, window_length=4),
        policy=policy,
        test_policy=EpsGreedyQPolicy(eps=0.05),  # a greedy player may never serve
        nb_steps_warmup=memory_limit // 20,
        target_model_update=10000,
        train_interval=4,
        delta_clip=1.0,
    )
    optimizer = getattr(model, "optimizer", None) or keras.optimizers.Adam(learning_rate=1e-4)
    dqn.compile(optimizer, metrics=["mae"])
    return dqn


def build_callbacks(run_dir, env):
    """A log, the last network and the best one by games in `env`."""
    log = FileLogger(run_dir / "log.json", interval=1000)
    return [log, KeepNetworks(run_dir, env, log, interval=100000, episodes=5)]


def report(best, env, seed):
    """Rewards of 10 episodes of the best network, and of a rule that learns nothing, as a dict."""
    dqn = build_agent(keras.models.load_model(best), memory_limit=100)
    rules = {"random": lambda state: random.randrange(4)}
    return compare(dqn, rules, env, episodes=10, seed=seed)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nb-steps", type=int, default=10000000, help="default: 10 million")
    parser.add_argument("--memory-limit", type=int, default=1000000, help="a million takes 7 GB")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, default="runs/dqn_breakout", help="a folder")
    parser.add_argument("--evaluate", action="store_true", help="only test the saved network")
    parser.add_argument("--render", action="store_true", help="show the test games in a window")
    args = parser.parse_args()
    if args.nb_steps < 1 or args.memory_limit < 100 or not 0 <= args.seed < 2**31:
        parser.error("--nb-steps begins at 1, --memory-limit at 100, --seed at 0")
    return args


def main():
    args = parse_arguments()
    run_dir, best = args.run_dir, args.run_dir / "model.keras"
    try:
        env = make_env(training=True)
        trials = make_env(render_mode="human" if args.render else None)
        settings = {"script": "dqn_breakout", "seed": args.seed, "memory_limit": args.memory_limit}
        if args.evaluate:
            return report(best, trials, args.seed + 10000)
        model, step, episode = open_run(run_dir, settings)
        env.reset(seed=args.seed + step)
        dqn = build_agent(model or build_model(), args.memory_limit)
        callbacks = build_callbacks(run_dir, trials)
    except Exception as error:  # gymnasium, h5py and Keras raise a dozen kinds
        sys.exit(f"error: Breakout: {' '.join(str(error).split())[:500]}")
    dqn.model.summary()
    dqn.fit(env, args.nb_steps, callbacks=callbacks, initial_step=step, initial_episode=episode)
    if dqn.step < args.nb_steps:
        sys.exit("Interrupted: the same command goes on")
    metrics = settings | {"steps": dqn.step} | report(best, trials, args.seed + 10000)
    metrics["mean_q"] = read_log(run_dir / "log.json")["mean_q"][-100:].mean()
    write_metrics(run_dir, metrics)


if __name__ == "__main__":
    main()
