"""Watch a trained network land on the moon: ten landings.

Book: chapter 12, "Lunar Lander", Results.

    python chapter12/dqn_lunar_lander_test.py                      # figures
    python chapter12/dqn_lunar_lander_test.py --video landing.gif  # a film, needs no display
    python chapter12/dqn_lunar_lander_test.py --render             # a window, needs a display

It takes the weights that come with the repository, or those that --weights names: .keras,
.weights.h5, or the book's own .h5f. 200 points and more are a good landing.
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
from dqn_lunar_lander import build_agent, build_model, make_env
from PIL import Image
from rl.callbacks import Callback

WEIGHTS = Path(__file__).resolve().parent / "weights" / "dqn_lunar_lander.weights.h5"


class Film(Callback):
    """Every third picture of all episodes."""

    def __init__(self):
        self.frames = []

    def on_step_end(self, step, logs=None):
        if step % 3 == 0:
            self.frames.append(Image.fromarray(self.env.render()).reduce(2).quantize(32))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="default: those shipped")
    parser.add_argument("--episodes", type=int, default=10, help="default: 10")
    parser.add_argument("--seed", type=int, default=1, help="of the moons (default: 1)")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--render", action="store_true", help="show a window")
    show.add_argument("--video", type=Path, metavar="FILE", help="write a .gif")
    args = parser.parse_args()
    if args.episodes < 1 or args.seed < 0:
        parser.error("--episodes begins at 1, --seed at 0")
    if args.video and args.video.suffix != ".gif":
        parser.error("--video writes a .gif")
    film = Film()
    try:
        env = make_env("human" if args.render else "rgb_array" if args.video else None)
        if args.weights.suffix == ".keras":  # a whole model, of any --units
            dqn = build_agent(keras.models.load_model(args.weights))
        else:
            dqn = build_agent(build_model())
            dqn.load_weights(args.weights)
        env.reset(seed=args.seed)
        history = dqn.test(env, args.episodes, callbacks=[film] * bool(args.video), visualize=False)
        rewards = np.array(history.history["episode_reward"])
        landed = f"{sum(rewards >= 200)} of {len(rewards)} reached 200"
        print(f"Mean reward {rewards.mean():.1f}; {landed}")
        if args.video:
            first, *others = film.frames
            first.save(args.video, save_all=True, append_images=others, duration=60, loop=0)
            print(f"The film is in {args.video}")
    except Exception as error:  # gymnasium, h5py, Keras and Pillow raise a dozen kinds
        sys.exit(f"error: {args.weights}: {' '.join(str(error).split())[:500]}")


if __name__ == "__main__":
    main()
