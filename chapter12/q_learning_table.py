"""Q-learning with a table instead of a network: the Bellman equation at work on FrozenLake.

Book: chapter 12, "Q-Learning" and "Infinite state space".

    python chapter12/q_learning_table.py                # 4x4 ice, slippery: the steps go astray
    python chapter12/q_learning_table.py --no-slip      # the steps go where they should

An elf crosses a frozen lake of 16 squares to a present; four of them are holes. With 16 states and
4 actions the Q-function fits into a table of 64 numbers, which the Bellman equation corrects after
each step:

    Q(s, a)  <-  Q(s, a) + rate * (reward + gamma * max Q(s', .) - Q(s, a))

The lake's rules are known, so the right Q-values can be computed, too (value iteration), and the
script compares: reward of the learned policy, of the best one and of random steps. A network takes
the table's place as soon as the states are too many to list: dqn_cartpole.py.
"""

import argparse
import sys

import gymnasium
import numpy as np
from tqdm import tqdm

ENV_NAME = "FrozenLake-v1"
ARROWS = "←↓→↑"
GAMMA = 0.99


def learn(env, episodes, rate=0.1, gamma=GAMMA, seed=1):
    """Fill a Q-table by playing.

    Epsilon-greedy: random steps at first, one in ten from the middle of training on.

    Returns:
        Array (states, actions) of Q-values.
    """
    rng = np.random.default_rng(seed)
    Q = np.zeros((env.observation_space.n, env.action_space.n))
    for episode in tqdm(range(episodes), "Learning", unit="episode"):
        eps = max(0.1, 1 - 2 * episode / episodes)
        state, _ = env.reset(seed=seed if episode == 0 else None)
        done = False
        while not done:
            if rng.random() < eps:
                action = int(rng.integers(env.action_space.n))
            else:
                action = int(rng.choice(np.flatnonzero(Q[state] == Q[state].max())))
            after, reward, terminated, truncated, _ = env.step(action)
            # Where the episode has ended nothing follows. Where it was cut off something would.
            value = 0.0 if terminated else Q[after].max()
            Q[state, action] += rate * (reward + gamma * value - Q[state, action])
            state, done = after, terminated or truncated
    return Q


def solve(env, gamma=GAMMA, tolerance=1e-10):
    """The right Q-table, from the rules that FrozenLake makes public (value iteration)."""
    rules = env.unwrapped.P  # state → action → list of (probability, next state, reward, ended)
    Q = np.zeros((len(rules), len(rules[0])))
    while True:
        new = np.array(
            [
                [
                    sum(
                        p * (r + gamma * (not ended) * Q[after].max()) for p, after, r, ended in way
                    )
                    for way in rules[state].values()
                ]
                for state in rules
            ]
        )
        if np.abs(new - Q).max() < tolerance:
            return new
        Q = new


def play(env, choose, episodes, seed=2):
    """Share of `episodes` that reach the present, by a function from state to action."""
    wins = 0.0
    for episode in range(episodes):
        state, _ = env.reset(seed=seed if episode == 0 else None)
        done = False
        while not done:
            state, reward, terminated, truncated, _ = env.step(choose(state))
            wins, done = wins + reward, terminated or truncated
    return wins / episodes


def describe(env, Q):
    """The lake as text: arrows for the best steps, o for holes, * for the present."""
    tiles = env.unwrapped.desc.astype(str)
    rows = []
    for r, row in enumerate(tiles):
        best = [ARROWS[Q[r * len(row) + c].argmax()] for c in range(len(row))]
        marks = {"H": "o", "G": "*"}
        rows.append(" ".join(marks.get(t, a) for t, a in zip(row, best, strict=True)))
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=20_000, help="default: 20000")
    parser.add_argument("--no-slip", action="store_true", help="ice that does not slip")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    args = parser.parse_args()
    if args.episodes < 1:
        print("error: --episodes must be 1 or more", file=sys.stderr)
        sys.exit(2)
    env = gymnasium.make(ENV_NAME, is_slippery=not args.no_slip)
    Q, right = learn(env, args.episodes, seed=args.seed), solve(env)
    print(f"\nLearned steps:\n{describe(env, Q)}\n\nBest steps:\n{describe(env, right)}\n")
    rng = np.random.default_rng(args.seed)
    rules = {
        "learned": lambda state: int(Q[state].argmax()),
        "best": lambda state: int(right[state].argmax()),
        "random": lambda state: int(rng.integers(env.action_space.n)),
    }
    for name, choose in rules.items():
        print(f"{name:>8}: {play(env, choose, 2000):6.1%} of 2,000 episodes reach the present")
    print(f"Value of the start: learned {Q[0].max():.3f}, right {right[0].max():.3f}")


if __name__ == "__main__":
    main()
