"""Chapter 12: known answers of memory, policies and updates; keras-rl's behaviour; learning."""

import json
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import gymnasium
import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT, load_script, run_python
from keras import layers

sys.path.insert(0, str(ROOT / "chapter12"))
from rl import callbacks, core, memory, policy, runs
from rl.agents import dqn

CARTPOLE = "chapter12/dqn_cartpole.py"
LANDER = "chapter12/dqn_lunar_lander.py"


def network(num_states=1, num_actions=2, window=1):
    """States (n, window, num_states) to Q-values; linear."""
    inputs = keras.Input(shape=(window, num_states))
    return keras.Model(inputs, layers.Dense(num_actions)(layers.Flatten()(inputs)))


def make_agent(model=None, optimizer="adam", **options):
    options = {"nb_steps_warmup": 20, "batch_size": 16, "target_model_update": 0.05} | options
    options = {"memory": memory.SequentialMemory(1000, 1), "nb_actions": 2} | options
    random = policy.EpsGreedyQPolicy(eps=1.0)
    agent = dqn.DQNAgent(model or network(), random, **options)
    agent.compile(optimizer)
    return agent


class Counter(gymnasium.Env):
    """Shows 0, 1, 2 … in one and the same array; the episode ends at `end`."""

    observation_space = gymnasium.spaces.Box(0, 99, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, end=5, truncated=False):
        self.end, self.truncated, self.array = end, truncated, np.zeros(1, "float32")
        self.actions = []

    def reset(self, seed=None, options=None):
        self.array[:] = 0
        return self.array, {}

    def step(self, action):
        self.actions.append(action)
        self.array += 1
        over = self.array[0] >= self.end
        reward = float(self.array[0])
        return self.array, reward, over and not self.truncated, over and self.truncated, {}


# --- memory -----------------------------------------------------------------------------------


def fill(ring, episodes):
    """Episodes of numbered observations, with keras-rl's entry after the end."""
    for numbers, truncated in episodes:
        for i, number in enumerate(numbers):
            end = i == len(numbers) - 2
            ring.append(np.float32([number]), number % 3, number, end, truncated=end and truncated)


def test_samples_are_steps_that_happened():
    ring = memory.SequentialMemory(100, 1)
    fill(ring, [([0, 1], False), ([1, 2, 3], False), ([10, 11], True), ([20, 21, 22], False)])
    seen = {
        (int(e.state0[0, 0]), e.action, e.reward, int(e.state1[0, 0]), e.terminal1)
        for _ in range(60)
        for e in ring.sample(6)
    }
    assert seen == {
        (1, 1, 1, 2, False),
        (2, 2, 2, 3, True),
        (10, 1, 10, 11, False),  # cut off by a time limit: what would follow counts
        (20, 2, 20, 21, False),
        (21, 0, 21, 22, True),
    }


def test_windows_end_at_episode_borders():
    """After `append(terminal=True)` and the last observation the window is [0 4], not [3 4]."""
    ring = memory.SequentialMemory(100, 2)
    recent = lambda n: ring.get_recent_state(np.float32([n]))[:, 0].tolist()  # noqa: E731
    assert recent(1) == [0, 1]
    ring.append(np.float32([1]), 0, 0.0, False)
    ring.append(np.float32([2]), 0, 0.0, True)
    assert recent(3) == [2, 3]
    ring.append(np.float32([3]), 0, 0.0, False)
    assert recent(4) == [0, 4]
    ring.append(np.float32([4]), 0, 0.0, False)
    ring.append(np.float32([5]), 0, 0.0, False, training=False)
    assert ring.nb_entries == 4 and recent(6) == [5, 6]
    through = memory.SequentialMemory(100, 2, ignore_episode_boundaries=True)
    fill(through, [([1, 2, 3], False)])
    assert through.get_recent_state(np.float32([4]))[:, 0].tolist() == [3, 4]


@pytest.mark.parametrize("window", [1, 4])
def test_full_ring_gives_whole_windows_only(window):
    """After the ring has gone round, no window holds frames that were overwritten."""
    ring = memory.SequentialMemory(50, window)
    fill(ring, [(list(range(start, start + 17)), False) for start in range(1, 1000, 17)])
    batch = ring.sample_arrays(1500)
    assert ring.nb_entries == 50
    for state in np.concatenate([batch.state0, batch.state1])[..., 0]:
        start = 1 + (state[-1] - 1) // 17 * 17  # of its episode
        wanted = [n if n >= start else 0 for n in state[-1] - np.arange(window)[::-1]]
        np.testing.assert_array_equal(state, wanted)


def test_frames_are_kept_once_and_as_bytes():
    """Shown at 100,000: a million frames with windows of four fit into 8 GB."""
    ring = memory.SequentialMemory(100_000, 4)
    for _ in range(9):
        ring.append(np.full((84, 84), 200, "uint8"), 0, 0.0, False)
    size = sum(a.nbytes for a in vars(ring).values() if isinstance(a, np.ndarray))
    assert 10 * size < 8e9 and ring.sample_arrays(3).state0.dtype == np.uint8


def test_too_few_entries_are_named():
    ring = memory.SequentialMemory(10, 1)
    fill(ring, [([1, 2], False), ([3], False)])  # the one candidate is an end
    with pytest.raises(ValueError, match="not enough entries"):
        ring.sample(1)


def test_observations_are_copied():
    """From an environment that uses its array again: 0 to 5, and not 1 2 3 4 5 5."""
    agent = make_agent()
    agent.fit(Counter(), 5, verbose=0)
    assert agent.memory.observations[:6, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert agent.memory.terminals[:6].tolist() == [False] * 4 + [True, False]


# --- policies ---------------------------------------------------------------------------------


def test_epsilon_goes_along_a_line():
    line = policy.LinearAnnealedPolicy(policy.EpsGreedyQPolicy(), "eps", 1.0, 0.1, 0.05, 10_000)
    agent = core.Agent()
    line.agent, agent.training = agent, True
    for agent.step, eps in [(0, 1.0), (5000, 0.55), (10_000, 0.1), (50_000, 0.1)]:
        line.select_action(q_values=np.zeros(2))
        assert line.inner_policy.eps == line.metrics[0] == pytest.approx(eps)
    agent.training = False
    assert line.get_current_value() == 0.05
    with pytest.raises(ValueError, match="tau"):
        policy.LinearAnnealedPolicy(policy.EpsGreedyQPolicy(), "tau", 1, 0, 0, 10)


def test_policies_pick_as_they_say():
    keras.utils.set_random_seed(0)
    q = np.array([0.0, 2.0, 1.0])
    softmax = np.exp(q) / np.exp(q).sum()
    wanted = {
        policy.GreedyQPolicy(): [0, 1, 0],
        policy.EpsGreedyQPolicy(eps=0.3): [0.1, 0.8, 0.1],
        policy.BoltzmannQPolicy(): softmax,
        policy.MaxBoltzmannQPolicy(eps=0.3): 0.3 * softmax + [0, 0.7, 0],
    }
    for one, shares in wanted.items():
        counts = np.bincount([one.select_action(q_values=q) for _ in range(5000)], minlength=3)
        np.testing.assert_allclose(counts / 5000, shares, atol=0.025)
    assert policy.BoltzmannQPolicy().select_action(q_values=np.array([0.0, 400, 0.0])) == 1


# --- learning ---------------------------------------------------------------------------------


def experience(actions, rewards, terminals):
    ones = np.ones((len(actions), 1, 1), "float32")
    return memory.Experience(ones, np.array(actions), np.array(rewards), ones, np.array(terminals))


@pytest.mark.parametrize("path", ["compiled", "keras"])
@pytest.mark.parametrize(
    ("options", "loss", "mae"),
    [
        # Targets 1 + 0.5 * 7 and, for the second, which ends there, 3; Q-values taken: 3 and 2.
        ({"enable_double_dqn": False}, (1.5**2 + 1) / 4, 1.25),
        ({"enable_double_dqn": True}, (0.5**2 + 1) / 4, 0.75),  # 1 + 0.5 * 5
        ({"enable_double_dqn": False, "delta_clip": 1.0}, (1.0 + 0.5) / 2, 1.25),
    ],
)
def test_one_update_by_hand(path, options, loss, mae):
    """The network prefers action 0 (worth 5 to the target network), the target network 1 (7)."""
    agent = make_agent(None, keras.optimizers.SGD(0.1), batch_size=2, gamma=0.5, **options)
    if path == "keras":
        agent._compile_with_keras()  # as with another backend than TensorFlow
    agent.model.set_weights([np.float32([[3, 2]]), np.zeros(2, "float32")])
    agent.target_model.set_weights([np.float32([[5, 7]]), np.zeros(2, "float32")])
    batch = experience([0, 1], [1.0, 3.0], [False, True])
    np.testing.assert_allclose(agent._train_on_batch(batch), [loss, mae, 3.0], rtol=1e-6)
    error = min(options.get("delta_clip", 9), 0.5 if options["enable_double_dqn"] else 1.5)
    new = np.float32([[3 + 0.1 * error / 2, 2 + 0.1 * 1 / 2]])
    np.testing.assert_allclose(agent.model.get_weights()[0], new, rtol=1e-6)
    target = 0.95 * np.float32([[5, 7]]) + 0.05 * new
    np.testing.assert_allclose(agent.target_model.get_weights()[0], target, rtol=1e-6)


def test_the_books_agent_is_a_double_one():
    """keras-rl 0.3.1 to 0.4.2 had it as its default."""
    script = load_script(CARTPOLE)
    agent = script.build_agent(script.build_model(4, 2))
    assert agent.enable_double_dqn and agent.model.count_params() == 658
    assert isinstance(agent.test_policy, policy.GreedyQPolicy)


def test_learning_begins_after_the_warm_up_and_targets_are_copied():
    agent = make_agent(target_model_update=30, train_interval=4)
    agent.fit(Counter(), 30, verbose=0)
    history = agent.fit(Counter(), 50, verbose=0, initial_step=30).history  # 20 more to warm up
    assert history["loss"][:4] == [None] * 4 and history["loss"][-1] is None
    assert agent.step == 50
    history = agent.fit(Counter(3), 59, verbose=0).history
    assert history["loss"][:8] == [None] * 8 and history["loss"][8] > 0  # at step 24
    assert not np.allclose(agent.model.get_weights()[0], agent.target_model.get_weights()[0])
    agent.fit(Counter(), 61, verbose=0, initial_step=60)
    for one, two in zip(agent.model.weights, agent.target_model.weights, strict=True):
        np.testing.assert_array_equal(one, two)


class TwoStates(gymnasium.Env):
    """In state 0, action 0 pays 0.5 and stays, action 1 pays nothing and leads to state 1.

    In state 1, action 0 pays 1 and stays, action 1 pays nothing and leads back. It never ends, but
    is cut off after `limit` steps. With gamma 0.5: Q = [[1, 1], [2, 0.5]].
    """

    observation_space = gymnasium.spaces.Box(0, 1, (2,), "float32")
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, limit=5, ends=False):
        self.limit, self.ends = limit, ends

    def reset(self, seed=None, options=None):
        self.state, self.time = 0, 0
        return np.eye(2, dtype="float32")[0], {}

    def step(self, action):
        reward = [0.5, 1.0][self.state] * (action == 0)
        self.state, self.time = (self.state + action) % 2, self.time + 1
        over = self.time >= self.limit
        return np.eye(2)[self.state], reward, over and self.ends, over and not self.ends, {}


def test_two_state_world_is_solved():
    """Q-values of the Bellman equation to 0.05: what was cut off by a time limit goes on."""
    keras.utils.set_random_seed(0)
    agent = make_agent(network(2, 2), keras.optimizers.Adam(0.01), gamma=0.5)
    agent.fit(TwoStates(), 1200, verbose=0)
    q = [agent.compute_q_values(state[None]) for state in np.eye(2, dtype="float32")]
    np.testing.assert_allclose(q, [[1.0, 1.0], [2.0, 0.5]], atol=0.05)


def test_ends_are_not_cut_offs():
    """The same world with real ends after one step: nothing follows, Q(0, .) = [0.5, 0]."""
    keras.utils.set_random_seed(0)
    agent = make_agent(network(2, 2), keras.optimizers.Adam(0.01), gamma=0.5)
    agent.fit(TwoStates(limit=1, ends=True), 600, verbose=0)
    np.testing.assert_allclose(agent.compute_q_values(np.float32([[1, 0]])), [0.5, 0], atol=0.05)


# --- environments -----------------------------------------------------------------------------


def test_actions_may_begin_at_one_and_their_number_may_be_numpys():
    env = Counter()
    env.action_space = gymnasium.spaces.Discrete(3, start=1)
    agent = make_agent(network(1, 3), nb_actions=np.int64(3))
    agent.fit(env, 40, verbose=0)
    assert set(env.actions) == {1, 2, 3} and set(agent.memory.actions) == {0, 1, 2}


class OldCounter(core.Env):
    """As gym had it, and keras-rl: four values from `step`, one from `reset`."""

    def reset(self):
        self.n = 0
        return {"n": np.float32([0]), "image": np.zeros((2, 2), "uint8")}

    def step(self, action):
        self.n += 1
        observation = {"n": np.float32([self.n]), "image": np.full((2, 2), self.n, "uint8")}
        return observation, 1.0, self.n == 4, {"TimeLimit.truncated": self.n == 4}


def test_old_environments_and_dicts_of_observations():
    inputs = {"n": keras.Input((2, 1), name="n"), "image": keras.Input((2, 2, 2), name="image")}
    x = layers.Concatenate()([layers.Flatten()(inputs["n"]), layers.Flatten()(inputs["image"])])
    model = keras.Model(inputs, layers.Dense(2)(x))
    agent = make_agent(model, memory=memory.SequentialMemory(50, 2))
    history = agent.fit(OldCounter(), 60, verbose=0)
    assert history.history["nb_episode_steps"] == [4] * 15 and history.history["loss"][-1] > 0
    assert agent.memory.no_action[4] and not agent.memory.terminals.any()
    state = agent.memory.sample(1, [3])[0].state0
    assert state["n"][:, 0].tolist() == [2, 3] and state["image"][:, 1, 1].tolist() == [2, 3]


# --- keras-rl's fit and test ------------------------------------------------------------------


class Recorder(callbacks.Callback):
    def __init__(self):
        self.calls = []

    def on_episode_begin(self, episode, logs=None):
        self.calls.append("episode")

    def on_step_end(self, step, logs=None):
        self.calls.append((logs["episode"], step, float(logs["reward"])))
        if logs["episode"] == 1:
            raise KeyboardInterrupt

    def on_train_end(self, logs=None):
        self.calls.append(logs)


def test_callbacks_are_called_and_ctrl_c_ends_a_training_in_order():
    recorder, agent = Recorder(), make_agent()
    history = agent.fit(Counter(2), 99, callbacks=[recorder], verbose=0)
    steps = ["episode", (0, 0, 1.0), (0, 1, 2.0), "episode", (1, 0, 1.0)]
    assert recorder.calls == [*steps, {"did_abort": True}]
    assert agent.step == 2 and history.history["episode_reward"] == [3.0]
    with pytest.raises(RuntimeError, match="compile"):
        core.Agent().fit(Counter(), 1)


def test_actions_are_repeated_and_episodes_cut_off():
    recorder, agent = Recorder(), make_agent()
    agent.fit(Counter(), 3, action_repetition=2, callbacks=[recorder], verbose=0)
    assert recorder.calls == [
        "episode",
        (0, 0, 3.0),
        (0, 1, 7.0),
        (0, 2, 5.0),
        {"did_abort": False},
    ]
    history = agent.fit(Counter(9), 12, nb_max_episode_steps=4, verbose=0)
    assert history.history["nb_episode_steps"] == [4, 4, 4]
    assert agent.memory.no_action[:9].any() and not agent.memory.terminals[4:16].any()
    with pytest.raises(ValueError, match="action_repetition"):
        agent.fit(Counter(), 3, action_repetition=0)


def test_episodes_start_with_steps_that_are_not_learned_from():
    seen, agent = [], make_agent()
    options = {"nb_max_start_steps": 4, "start_step_policy": lambda o: seen.append(o[0]) or 0}
    history = agent.fit(Counter(9), 60, verbose=0, **options)
    starts = [9 - steps for steps in history.history["nb_episode_steps"]]
    assert len(set(starts)) > 1 and set(starts) <= {0, 1, 2, 3} and set(seen) <= {0, 1, 2}
    assert agent.memory.observations[0, 0] == starts[0]


def test_a_processor_changes_what_passes():
    class Double(core.Processor):
        def process_observation(self, observation):
            return 2 * observation

        def process_reward(self, reward):
            return min(reward, 3.0)

        def process_action(self, action):
            return 1 - action

    env, agent = Counter(), make_agent(processor=Double())
    history = agent.fit(env, 5, verbose=0)
    assert agent.memory.observations[:6, 0].tolist() == [0, 2, 4, 6, 8, 10]
    assert agent.memory.actions[:5].tolist() == [1 - action for action in env.actions]
    assert history.history["episode_reward"] == [1 + 2 + 3 + 3 + 3]


def test_log_has_keras_rls_figures(tmp_path, capsys):
    agent = make_agent()
    logger = callbacks.FileLogger(tmp_path / "log.json")
    history = agent.fit(Counter(), 52, callbacks=[logger], verbose=2)
    log = json.loads((tmp_path / "log.json").read_text())
    assert log["episode"] == list(range(10)) and log["nb_steps"] == list(range(5, 51, 5))
    assert log["episode_reward"] == history.history["episode_reward"] == [15.0] * 10
    assert 0 < sum(log["duration"]) < 60 and {len(values) for values in log.values()} == {10}
    assert log["loss"][0] is None and log["loss"][-1] > 0 and "mean_q" in log
    assert len(capsys.readouterr().out.splitlines()) == 10
    agent.fit(Counter(), 50, callbacks=[logger], log_interval=20, initial_step=30)
    assert json.loads((tmp_path / "log.json").read_text())["nb_steps"] == list(range(5, 51, 5))
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["Step 40"]


def test_weights_of_the_book_are_written_and_read(tmp_path):
    """Those of a ModelIntervalCheckpoint, and keras-rl's own, of Keras 2."""
    agent, other = make_agent(), make_agent()
    name = tmp_path / "dqn_{step}.h5f"
    agent.fit(Counter(), 9, callbacks=[callbacks.ModelIntervalCheckpoint(name, 5)], verbose=0)
    other.load_weights(tmp_path / "dqn_5.h5f")
    for network in (other.model, other.target_model):
        np.testing.assert_array_equal(network.get_weights()[0], agent.model.get_weights()[0])
    with pytest.raises(FileExistsError):
        agent.save_weights(tmp_path / "dqn_5.h5f")
    with h5py.File(tmp_path / "old.h5f", "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"flatten_1", b"dense_1"]
        for layer in ("input_1", "flatten_1"):
            file.create_group(layer).attrs["weight_names"] = np.array([], "S1")
        group = file.create_group("dense_1")
        group.attrs["weight_names"] = [b"dense_1/kernel:0", b"dense_1/bias:0"]
        group["dense_1/kernel:0"], group["dense_1/bias:0"] = [[3.0, 4.0]], [5.0, 6.0]
    other.load_weights(tmp_path / "old.h5f")
    assert [w.tolist() for w in other.model.get_weights()] == [[[3, 4]], [5, 6]]


# --- runs -------------------------------------------------------------------------------------


def keep(folder, env, interval, **options):
    log = callbacks.FileLogger(folder / "log.json", interval=1)
    return [log, runs.KeepNetworks(folder, env, log, interval, **options)]


def test_best_network_is_kept(tmp_path):
    """Of trials with scores 1, 3, 2, 3 the last 3 is kept, where the training goes on, too."""
    agent, scores = make_agent(), iter([1, 3, 2, 3, 2])
    agent.test = lambda *_, **__: SimpleNamespace(history={"episode_reward": [next(scores)]})
    keepers = keep(tmp_path, Counter(), 10, episodes=2)
    agent.fit(Counter(), 38, callbacks=keepers, verbose=0)
    note = json.loads((tmp_path / "best.json").read_text())
    assert note == {"mean_reward": 3.0, "step": 38, "episodes": 2}
    agent.fit(Counter(), 45, callbacks=keepers, verbose=0, initial_step=38)
    assert json.loads((tmp_path / "best.json").read_text()) == note
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 2)


def test_trials_leave_the_training_alone(tmp_path):
    """With greedy games every 20 steps the agent ends with the same weights as without."""
    ends = []
    for keepers in ([], keep(tmp_path, TwoStates(), 20, episodes=2)):
        keras.utils.set_random_seed(0)
        agent = make_agent(network(2, 2, window=2), memory=memory.SequentialMemory(99, 2))
        agent.fit(TwoStates(), 100, callbacks=keepers, verbose=0)
        ends.append(agent.model.get_weights()[0])
    np.testing.assert_array_equal(*ends)


def test_a_run_goes_on_with_its_optimizer(tmp_path):
    """After the last save; the log is cut to it, and another fit begins another episode."""
    folder = tmp_path / "run"
    assert runs.open_run(folder, {"seed": 1}) == (None, 0, 0)
    agent, keepers = make_agent(), keep(folder, Counter(), 20, episodes=1)
    agent.fit(Counter(), 60, callbacks=keepers, verbose=0)
    (folder / "last_60.keras").rename(folder / "last_40.keras")
    (folder / "new.keras").write_text("cut off")
    (folder / "last_7.keras").write_text("mine")
    model, step, episode = runs.open_run(folder, {"seed": 1})
    assert (step, episode) == (40, 8)
    assert int(model.optimizer.iterations) == int(agent.optimizer.iterations) > 30
    again = make_agent(model, model.optimizer)
    options = {"initial_step": step, "initial_episode": episode}
    again.fit(Counter(), 83, callbacks=keepers, verbose=0, **options)
    data = json.loads((folder / "log.json").read_text())
    assert data["episode"] == list(range(16)) and data["nb_steps"] == list(range(5, 81, 5))
    assert {path.name for path in folder.glob("last*")} == {"last_83.keras", "last_7.keras"}
    entries = again.memory.nb_entries
    again.fit(Counter(), 5, verbose=0)
    assert again.memory.no_action[entries - 1] and again.memory.times[entries] == 0
    with pytest.raises(ValueError, match="--run-dir"):
        runs.open_run(folder, {"seed": 2})


# --- scripts ----------------------------------------------------------------------------------


def test_logs_are_drawn(monkeypatch, tmp_path):
    script = load_script("chapter12/visualize_log.py")
    log, picture = str(tmp_path / "log.json"), tmp_path / "two.png"
    monkeypatch.setattr(sys, "argv", ["visualize_log.py", log, log, "--output", str(picture)])
    with pytest.raises(SystemExit, match="error: .*log.json"):
        script.main()
    figures = {"nb_steps": [20, 50], "episode_reward": [20.0, 30.0]}
    (tmp_path / "log.json").write_text(json.dumps(figures))
    script.main()
    assert picture.stat().st_size > 5000


@pytest.mark.slow
def test_it_trains_with_jax(tmp_path):
    pytest.importorskip("jax")
    options = ["--nb-steps", 2000, "--max-episode-steps", 30, "--run-dir", tmp_path / "run"]
    result = run_python(CARTPOLE, *options, env={"KERAS_BACKEND": "jax"})
    assert result.returncode == 0, result.stderr
    log = json.loads((tmp_path / "run" / "log.json").read_text())
    assert log["mean_q"][-1] > 5 > log["mean_q"][log["loss"].count(None)]


OWN_ENVIRONMENT = """
import gymnasium, numpy as np
from gymnasium.spaces import Box, Dict, Discrete

class Corridor(gymnasium.Env):
    observation_space = Dict({"place": Discrete(4), "light": Box(0, 1, (2,), "float32")})
    action_space = Discrete(2, start=1)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.see(), {}

    def see(self):
        return {"place": self.place, "light": np.float32([0.5, 0.5])}

    def step(self, action):
        assert action in (1, 2)
        self.place = min(self.place + 1, 3) if action == 2 else 0
        return self.see(), float(self.place == 3), False, False, {}

gymnasium.register("Corridor-v0", Corridor, max_episode_steps=20)
"""


@pytest.mark.slow
def test_an_environment_of_ones_own(tmp_path):
    """With a dict of observations and actions from 1: 18 of 20 steps at the end of the corridor."""
    (tmp_path / "corridor.py").write_text(OWN_ENVIRONMENT)
    command = [sys.executable, str(ROOT / CARTPOLE), "--env", "corridor:Corridor-v0"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "MPLBACKEND": "Agg"}
    result = subprocess.run(
        [*command, "--nb-steps", "3000"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "runs" / "dqn_Corridor-v0" / "metrics.json").read_text())
    assert metrics["test"]["mean_reward"] == 18


@pytest.mark.slow
def test_shipped_weights_land(run_script, tmp_path):
    pytest.importorskip("Box2D")
    film = tmp_path / "landing.gif"
    result = run_script(
        "chapter12/dqn_lunar_lander_test.py", "--episodes", 2, "--seed", 1, "--video", film
    )
    assert result.returncode == 0 and film.stat().st_size > 10_000, result.stderr
    assert "2 of 2 reached 200" in result.stdout
    (tmp_path / "bad.h5f").write_text("no weights")
    result = run_script("chapter12/dqn_lunar_lander_test.py", "--weights", tmp_path / "bad.h5f")
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: ")


def test_missing_physics_are_named(monkeypatch):
    """Without Box2D there is a line with the command that installs it."""
    script = load_script(LANDER)

    def make(*args, **options):
        raise gymnasium.error.DependencyNotInstalled("pip install gymnasium[box2d]")

    monkeypatch.setattr(script.gymnasium, "make", make)
    monkeypatch.setattr(sys, "argv", ["dqn_lunar_lander.py"])
    with pytest.raises(SystemExit, match=r"error: LunarLander-v3: .*gymnasium\[box2d\]"):
        script.main()


def test_table_finds_the_way():
    """The lake without slipping has a way of six steps: its value is 0.99 to the fifth."""
    table = load_script("chapter12/q_learning_table.py")
    env = gymnasium.make("FrozenLake-v1", is_slippery=False)
    assert table.solve(env)[0].max() == pytest.approx(0.99**5)
    Q = table.learn(env, 3000, seed=1)
    assert table.play(env, lambda state: Q[state].argmax(), 20) == 1.0
    assert Q[0].max() == pytest.approx(0.99**5, abs=0.01)
    slippery = gymnasium.make("FrozenLake-v1", is_slippery=True)
    assert table.solve(slippery)[0].max() == pytest.approx(0.542, abs=0.001)


def test_breakout_is_the_papers():
    """Maximum of two frames, a random start, the end at a lost life, DeepMind's network."""
    for module in ("ale_py", "cv2"):
        pytest.importorskip(module)
    script = load_script("chapter12/dqn_breakout.py")
    assert script.build_model().count_params() == 1_686_180
    env = script.make_env(training=True)
    firsts = [env.reset(seed=seed)[0] for seed in (1, 2, 3)]
    assert firsts[0].shape == (84, 84) and firsts[0].dtype == np.uint8 and firsts[0].std() > 10
    terminated, lives = False, env.unwrapped.ale.lives()
    while not terminated:
        _, reward, terminated, _, _ = env.step(env.action_space.sample())
        assert reward in (0, 1)
    assert env.unwrapped.ale.lives() == lives - 1


# --- keras-rl's own tests ---------------------------------------------------------------------

NOT_APPLICABLE = {
    "test_single_continuous_dqn_input": "NAF",
    "test_multi_continuous_dqn_input": "NAF",
    "test_naf_layer_full": "NAF",
    "test_naf_layer_diag": "NAF",
    "test_clone_optimizer": "Keras 3 forbids clipnorm and clipvalue together",
}


@pytest.mark.slow
def test_keras_rls_own_tests_pass(tmp_path):
    """Those of memory, core, util and DQN, from keras-rl2's source distribution."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    got = subprocess.run([*pip, "keras-rl2==1.0.5", "--dest", str(tmp_path)], capture_output=True)
    if got.returncode:
        pytest.skip("keras-rl2 cannot be fetched")
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    tests = tmp_path / "keras-rl2-1.0.5" / "tests"
    (tests / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'chapter12')!r})\n"
        "import rl.agents.dqn\nrl.agents.dqn.NAFAgent = rl.agents.dqn.NAFLayer = None\n"
    )
    files = [tests / "rl" / f"test_{name}.py" for name in ("memory", "core", "util")]
    files.append(tests / "rl" / "agents" / "test_dqn.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", *map(str, files)],
        cwd=tests,
        capture_output=True,
        text=True,
    )
    lines = [line.split() for line in result.stdout.splitlines()]
    passed = {line[1].split("::")[1] for line in lines if line[:1] == ["PASSED"]}
    failed = {line[1].split("::")[1] for line in lines if line[:1] == ["FAILED"]}
    assert len(passed) == 13 and failed == set(NOT_APPLICABLE), result.stdout
