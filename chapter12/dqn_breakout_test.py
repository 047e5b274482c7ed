"""Let a trained network play Breakout: ten games.

Book: chapter 12, whose repository carries this example.

    python chapter12/dqn_breakout_test.py            # figures
    python chapter12/dqn_breakout_test.py --render   # a window, needs a display

No weights come with the repository: a full training takes a GPU (chapter12/README.md).
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
from dqn_breakout import build_agent, build_model, make_env


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--weights", type=Path, default="runs/dqn_breakout/model.keras", help="of a trained network"
    )
    parser.add_argument("--episodes", type=int, default=10, help="default: 10")
    parser.add_argument("--max-episode-steps", type=int, help="cut a game off")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--render", action="store_true", help="show a window")
    args = parser.parse_args()
    if args.episodes < 1 or args.seed < 0:
        parser.error("--episodes begins at 1, --seed at 0")
    try:
        keras.utils.set_random_seed(args.seed)
        env = make_env(render_mode="human" if args.render else None)
        dqn = build_agent(build_model(), memory_limit=100)
        dqn.load_weights(args.weights)
        env.reset(seed=args.seed)
        options = {"nb_max_episode_steps": args.max_episode_steps, "visualize": False}
        history = dqn.test(env, args.episodes, **options)
    except Exception as error:  # gymnasium, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.weights}: {' '.join(str(error).split())}")
    rewards = np.array(history.history["episode_reward"])
    print(f"Mean score {rewards.mean():.1f} of {len(rewards)} games")


if __name__ == "__main__":
    main()
