"""Teach a deep Q-network to land on the moon (gymnasium's LunarLander-v3).

Book: chapter 12, "Lunar Lander".

    python chapter12/dqn_lunar_lander.py                      # 300,000 steps
    python chapter12/dqn_lunar_lander.py --nb-steps 1000000   # goes on to the book's million
    python chapter12/dqn_lunar_lander.py --units 256 256 --run-dir runs/wide    # a wider network

Eight numbers say where the lander is, how fast, how tilted, and whether its legs touch; it can do
nothing or fire one of three engines. A landing is worth more than 200 points, a crash costs 100: it
first learns to hover, since not to land is better than to crash, and only then to land. The network
is the book's, the agent's settings are not (README.md here has all of them). Five seeds: 188 ± 89
points, since two go on hovering, with --units 256 256 253 ± 8; a pilot written by hand 246 ± 10.
"""

import argparse
import random
import sys
from pathlib import Path

import gymnasium
import keras
from keras import layers
from rl.agents.dqn import DQNAgent
from rl.callbacks import FileLogger
from rl.memory import SequentialMemory
from rl.policy import EpsGreedyQPolicy, LinearAnnealedPolicy
from rl.runs import KeepNetworks, compare, open_run, write_metrics


def make_env(render_mode=None):
    """The environment; its physics need Box2D."""
    return gymnasium.make("LunarLander-v3", render_mode=render_mode)


def build_model(state_size=8, num_actions=4, units=(64, 32, 16)):
    """The book's network: states (n, 1, state_size) to Q-values (n, num_actions)."""
    inputs = keras.Input(shape=(1, state_size), name="state")
    x = layers.Flatten(name="flatten")(inputs)
    for number, size in enumerate(units, start=1):
        x = layers.Dense(size, activation="relu", name=f"fc{number}")(x)
    outputs = layers.Dense(num_actions, activation="linear", name="q_values")(x)
    return keras.Model(inputs=inputs, outputs=outputs, name="dqn_lunar_lander")


def build_agent(model):
    """A double deep Q-learning agent, compiled."""
    policy = LinearAnnealedPolicy(
        EpsGreedyQPolicy(), attr="eps", value_max=1, value_min=0.1, value_test=0, nb_steps=50000
    )
    dqn = DQNAgent(
        model=model,
        nb_actions=4,
        memory=SequentialMemory(limit=200000, window_length=1),
        nb_steps_warmup=1000,
        target_model_update=5e-3,
        policy=policy,
        batch_size=64,
        train_interval=2,
        delta_clip=1.0,
    )
    optimizer = getattr(model, "optimizer", None) or keras.optimizers.Adam(learning_rate=5e-4)
    dqn.compile(optimizer, metrics=["mae"])
    return dqn


def build_callbacks(run_dir, env):
    """A log, the last network and the best one by games in `env`."""
    log = FileLogger(run_dir / "log.json", interval=100)
    return [log, KeepNetworks(run_dir, env, log, interval=10000)]


def report(best, env, seed):
    """Rewards of 100 episodes of the best network, and of rules that learn nothing, as a dict."""
    from gymnasium.envs.box2d.lunar_lander import heuristic  # gymnasium's own, by hand

    dqn = build_agent(keras.models.load_model(best))
    rules = {"random": lambda state: random.randrange(4)}
    rules["hand_written_pilot"] = lambda state: heuristic(env.unwrapped, state)
    return compare(dqn, rules, env, episodes=100, seed=seed)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nb-steps", type=int, default=300000, help="default: 300000")
    parser.add_argument(
        "--units", type=int, nargs="+", default=[64, 32, 16], help="default: 64 32 16, the book's"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, default="runs/dqn_lunar_lander", help="a folder")
    parser.add_argument("--evaluate", action="store_true", help="only test the saved network")
    args = parser.parse_args()
    if min(args.nb_steps, *args.units) < 1 or not 0 <= args.seed < 2**31:
        parser.error("--nb-steps and --units begin at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    run_dir, best = args.run_dir, args.run_dir / "model.keras"
    try:
        env, trials = make_env(), make_env()
        settings = {"script": "dqn_lunar_lander", "units": args.units, "seed": args.seed}
        if args.evaluate:
            return report(best, env, args.seed + 10000)
        model, step, episode = open_run(run_dir, settings)
        env.reset(seed=args.seed + step)
        dqn = build_agent(model or build_model(units=args.units))
        callbacks = build_callbacks(run_dir, trials)
    except Exception as error:  # gymnasium, h5py and Keras raise a dozen kinds
        sys.exit(f"error: LunarLander-v3: {' '.join(str(error).split())[:500]}")
    dqn.model.summary()
    dqn.fit(env, args.nb_steps, callbacks=callbacks, initial_step=step, initial_episode=episode)
    if dqn.step < args.nb_steps:
        sys.exit("Interrupted: the same command goes on")
    scores = report(best, env, args.seed + 10000)
    write_metrics(run_dir, settings | {"steps": dqn.step} | scores)


if __name__ == "__main__":
    main()
