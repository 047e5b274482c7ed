"""Chapter 12: environment steps per second in training, keras-rl's way and SB3's against ours.

    python benchmarks/bench_dqn.py                    # some minutes on 2 cores
    python benchmarks/bench_dqn.py --steps 200        # quick look

keras-rl's way: `predict_on_batch` for each action and for the targets, `train_on_batch` for each
update. Ours: chapter12/rl/agents/dqn.py, one compiled call to act and one to learn.
Stable-Baselines3's DQN runs in a process of its own, where it is installed. Environment, network,
memory, batch size and how often it learns are the same. All are warmed up; then they take turns.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "chapter12"))

import dqn_cartpole
import dqn_lunar_lander
import keras
import tensorflow as tf
from common import record

KERAS_RL, OURS, SB3 = "keras-rl's way", "ours", "Stable-Baselines3"


def make_trainer(script, env_name, sizes, way):
    """A function that trains for so many steps and returns the seconds, warmed up."""
    if way == SB3:
        command = [sys.executable, str(FOLDER / "dqn_sb3.py"), env_name, "--like-ours"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

        def ask(steps):
            process.stdin.write(f"{steps}\n".encode())
            process.stdin.flush()
            return float(process.stdout.readline())

        ask(400)
        return ask
    keras.utils.set_random_seed(1)
    agent, env = script.build_agent(script.build_model(*sizes)), script.make_env()
    if way == KERAS_RL:
        agent._compile_with_keras()
        # keras-rl, too, has this in a compiled function.
        agent.update_target_model_softly = tf.function(agent.update_target_model_softly)
    agent.nb_steps_warmup = 100

    def train(steps):
        first = agent.step
        start = time.perf_counter()
        agent.fit(env, first + steps, verbose=0, initial_step=first)
        return time.perf_counter() - start

    train(400)
    agent.nb_steps_warmup = -1  # the memory is filled
    return train


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="in a turn (default: 2000)")
    parser.add_argument("--turns", type=int, default=5, help="default: 5")
    args = parser.parse_args()
    for script, name, sizes in (
        (dqn_cartpole, "CartPole-v1", (4, 2)),
        (dqn_lunar_lander, "LunarLander-v3", (8, 4)),
    ):
        trainers = {way: make_trainer(script, name, sizes, way) for way in (KERAS_RL, OURS)}
        try:
            trainers[SB3] = make_trainer(script, name, sizes, SB3)
        except (OSError, ValueError):
            print("Stable-Baselines3 is not installed (requirements-bench.txt)")
        speeds = {way: [] for way in trainers}
        for _ in range(args.turns):
            for way, train in trainers.items():
                speeds[way].append(args.steps / train(args.steps))
        print(f"{name}, steps per second, median of {args.turns} (lowest to highest):")
        for way, values in speeds.items():
            ratio = statistics.median(speeds[OURS]) / statistics.median(values)
            print(f"  {way:<18} {statistics.median(values):7.0f} ({min(values):.0f} to "
                  f"{max(values):.0f}), ours {ratio:.2f} times as many")  # fmt: skip
        record(f"chapter 12, DQN: training in {name}", "steps/s", speeds[KERAS_RL], speeds[OURS])
        if SB3 in speeds:
            what = f"chapter 12, DQN: training in {name}"
            record(what, "steps/s", speeds[SB3], speeds[OURS], against=SB3)


if __name__ == "__main__":
    main()
