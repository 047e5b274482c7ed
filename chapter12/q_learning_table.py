"""Q-learning with a table instead of a network: the Bellman equation at work on FrozenLake.

Book: chapter 12, "Q-Learning" and "Infinite state space".

    python chapter12/q_learning_table.py                # 4x4 ice, slippery: the steps go astray
    python chapter12/q_learning_table.py --no-slip      # the steps go where they should

An elf crosses a frozen lake of 16 squares to a present; four of them are holes. With 16 states and
4 actions the Q-function fits into a table of 64 numbers, which the Bellman equation corrects after
each step. The lake's rules are known, so the right Q-values can be computed, too. A network takes
the table's place as soon as the states are too many to list: dqn_cartpole.py.
"""

import argparse

import gymnasium
import numpy as np

GAMMA = 0.99


def learn(env, episodes, rate=0.1, seed=1):
    """Q-values (states, actions) from playing: at random at first, one step in ten in the end."""
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    Q = np.zeros((env.observation_space.n, env.action_space.n))
    for episode in range(episodes):
        eps = max(0.1, 1 - 2 * episode / episodes)
        state, _ = env.reset()
        done = False
        while not done:
            best = np.flatnonzero(Q[state] == Q[state].max())
            action = rng.integers(Q.shape[1]) if rng.random() < eps else rng.choice(best)
            after, reward, terminated, truncated, _ = env.step(action)
            # Where the episode has ended nothing follows. Where it was cut off something would.
            value = 0 if terminated else Q[after].max()
            Q[state, action] += rate * (reward + GAMMA * value - Q[state, action])
            state, done = after, terminated or truncated
    return Q


def solve(env):
    """The right Q-values, from the rules that FrozenLake makes public (value iteration)."""
    rules = env.unwrapped.P  # state: action: list of (probability, next state, reward, ended)
    Q = np.zeros((len(rules), len(rules[0])))
    for _ in range(2000):  # what is wrong at first has shrunk to 0.99 to the 2,000th, 2e-9
        values = Q.max(axis=1)
        for state, actions in rules.items():
            for action, outcomes in actions.items():
                Q[state, action] = sum(
                    p * (reward + GAMMA * (0 if ended else values[after]))
                    for p, after, reward, ended in outcomes
                )
    return Q


def play(env, choose, episodes=2000, seed=2):
    """Share of `episodes` that reach the present, by a function from state to action."""
    env.reset(seed=seed)
    wins = 0
    for _ in range(episodes):
        state, _ = env.reset()
        done = False
        while not done:
            state, reward, terminated, truncated, _ = env.step(choose(state))
            wins, done = wins + reward, terminated or truncated
    return wins / episodes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20000, help="default: 20000")
    parser.add_argument("--no-slip", action="store_true", help="ice that does not slip")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    args = parser.parse_args()
    if args.episodes < 1 or args.seed < 0:
        parser.error("--episodes begins at 1, --seed at 0")
    env = gymnasium.make("FrozenLake-v1", is_slippery=not args.no_slip)
    learned, right = learn(env, args.episodes, seed=args.seed), solve(env)
    tiles = env.unwrapped.desc.astype(str).ravel()
    for name, Q in (("Learned", learned), ("Best", right)):
        arrows = np.array(list("←↓→↑"))[Q.argmax(axis=1)]
        picture = np.where(tiles == "H", "o", np.where(tiles == "G", "*", arrows)).reshape(4, 4)
        print(f"{name} steps:", *map(" ".join, picture), sep="\n")
        share = play(env, lambda state, Q=Q: Q[state].argmax())
        print(f"{share:.1%} of 2,000 episodes reach the present; value {Q[0].max():.3f}\n")
    rng = np.random.default_rng(args.seed)
    print(f"Random steps: {play(env, lambda state: rng.integers(4)):.1%}")


if __name__ == "__main__":
    main()
