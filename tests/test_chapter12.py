"""Chapter 12: known answers of memory, policies and updates; keras-rl's behaviour; learning."""

import json
import subprocess
import sys
import tarfile
from types import SimpleNamespace
from unittest.mock import Mock

import gymnasium
import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT, load_script, run_python
from gymnasium.spaces import Dict, Discrete
from keras import layers

sys.path.insert(0, str(ROOT / "chapter12"))
from rl import callbacks, core, memory, policy, runs
from rl.agents import dqn

CARTPOLE = "chapter12/dqn_cartpole.py"


def make_agent(model=None, optimizer="adam", num_states=1, **options):
    """For states (n, 1, num_states) and two actions; it acts at random, its network is linear."""
    if model is None:
        model = keras.Sequential([keras.Input((1, num_states)), layers.Flatten(), layers.Dense(2)])
    options = {"nb_steps_warmup": 20, "batch_size": 16, "target_model_update": 0.05} | options
    options = {"memory": memory.SequentialMemory(1000, 1), "nb_actions": np.int64(2)} | options
    agent = dqn.DQNAgent(model, policy.EpsGreedyQPolicy(eps=1.0), **options)
    agent.compile(optimizer)
    return agent


class Counter(core.Env):
    """An environment of the older gym; shows 0, 1, 2 … up to `end` in one and the same array."""

    def __init__(self, end=5, truncated=False):
        self.end, self.truncated, self.array = end, truncated, np.zeros(1, "float32")

    def reset(self, seed=None):
        self.array[:] = 0
        return self.array

    def step(self, action):
        self.action, self.array[0] = action, self.array[0] + 1
        done = self.array[0] >= self.end
        return self.array, float(self.array[0]), done, {"TimeLimit.truncated": self.truncated}


def run_main(monkeypatch, script, *options):
    """What `python SCRIPT OPTIONS…` does, in this process."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
    load_script(script).main()


@pytest.mark.parametrize("window", [1, 4])
def test_samples_are_steps_that_happened(window):
    """Also after the ring has gone round: no window holds frames that were overwritten."""
    ring = memory.SequentialMemory(50, window)
    with pytest.raises(ValueError, match="not enough entries"):
        ring.sample(1)
    for start in range(0, 1020, 17):  # 16 steps and, as in keras-rl, an entry after the end
        for n in range(start, start + 17):
            end = n == start + 15
            ring.append(np.float32([n]), n % 3, n, end, truncated=end and start % 2 == 0)
    for state0, action, reward, state1, terminal in ring.sample(1500):
        start = reward // 17 * 17
        assert reward < start + 16 and action == reward % 3
        # Where a time limit cut an episode off, what would follow counts.
        assert terminal == (reward == start + 15 and start % 2 == 1)
        for state, last in ((state0, reward), (state1, reward + 1)):
            numbers = np.arange(last - window + 1, last + 1)
            np.testing.assert_array_equal(state[:, 0], np.where(numbers < start, 0, numbers))


@pytest.mark.parametrize("ignore", [False, True])
def test_windows_end_at_episode_borders(ignore):
    """After `append(terminal=True)` and the last observation, 3, the window is [0 4]."""
    ring, seen = memory.SequentialMemory(100, 2, ignore_episode_boundaries=ignore), []
    for number in range(1, 7):
        seen.append(ring.get_recent_state(np.float32([number]))[:, 0].tolist())
        ring.append(np.float32([number]), 0, 0.0, number == 2, training=number != 5)
    assert seen == [[0, 1], [1, 2], [2, 3], [3 if ignore else 0, 4], [4, 5], [5, 6]]
    assert ring.nb_entries == 5


def test_policies_pick_as_they_say():
    keras.utils.set_random_seed(0)
    q = np.array([0.0, 2.0, 1.0])
    softmax = np.exp(q) / np.exp(q).sum()
    wanted = {
        policy.EpsGreedyQPolicy(eps=0.3): [0.1, 0.8, 0.1],
        policy.BoltzmannQPolicy(): softmax,
        policy.MaxBoltzmannQPolicy(eps=0.3): 0.3 * softmax + [0, 0.7, 0],
    }
    for one, shares in wanted.items():
        counts = np.bincount([one.select_action(q_values=q) for _ in range(5000)], minlength=3)
        np.testing.assert_allclose(counts / 5000, shares, atol=0.025)


def test_the_books_agent():
    """A double one, as was keras-rl's default from 0.3.1 to 0.4.2; epsilon goes along a line."""
    script = load_script(CARTPOLE)
    agent = script.build_agent(script.build_model(4, 2))
    assert agent.enable_double_dqn and agent.model.count_params() == 658
    assert isinstance(agent.test_policy, policy.GreedyQPolicy)
    agent.training = True
    for agent.step, eps in [(0, 1.0), (5000, 0.55), (10_000, 0.1), (50_000, 0.1)]:
        agent.policy.select_action(q_values=np.zeros(2))
        assert agent.policy.inner_policy.eps == agent.policy.metrics[0] == pytest.approx(eps)


@pytest.mark.parametrize("path", ["compiled", "keras"])
@pytest.mark.parametrize(
    ("options", "loss", "error", "slope"),
    [
        ({"enable_double_dqn": True}, 0.5**2 / 2, 0.5, 0.5),  # target 1 + 0.5 * 5, Q-value 3
        ({"enable_double_dqn": False}, 1.5**2 / 2, 1.5, 1.5),  # 1 + 0.5 * 7
        ({"enable_double_dqn": False, "delta_clip": 1.0}, 1.0, 1.5, 1.0),
    ],
)
def test_one_update_by_hand(path, options, loss, error, slope):
    """The network prefers action 0 (worth 5 to the target network), the target network 1 (7)."""
    agent = make_agent(None, keras.optimizers.SGD(0.1), batch_size=2, gamma=0.5, **options)
    if path == "keras":
        agent._compile_with_keras()  # as with another backend than TensorFlow
    agent.model.set_weights([np.float32([[3, 2]]), np.zeros(2, "float32")])
    agent.target_model.set_weights([np.float32([[5, 7]]), np.zeros(2, "float32")])
    # The second experience ends its episode: target 3, Q-value 2.
    ones, rewards, terminals = np.ones((2, 1, 1), "float32"), [1.0, 3.0], [False, True]
    arrays = map(np.array, (ones, [0, 1], rewards, ones, terminals))
    figures = agent._train_on_batch(memory.Experience(*arrays))
    np.testing.assert_allclose(figures, [(loss + 0.5) / 2, (error + 1) / 2, 3.0], rtol=1e-6)
    new = np.float32([[3 + 0.1 * slope / 2, 2 + 0.1 * 1 / 2]])
    np.testing.assert_allclose(agent.model.get_weights()[0], new, rtol=1e-6)
    target = 0.95 * np.float32([[5, 7]]) + 0.05 * new
    np.testing.assert_allclose(agent.target_model.get_weights()[0], target, rtol=1e-6)


def test_learning_begins_after_the_warm_up_and_targets_are_copied():
    agent = make_agent(target_model_update=30, train_interval=4)
    history = agent.fit(Counter(), 80, verbose=0, initial_step=30).history  # 20 more to warm up
    assert history["loss"][:4] == [None] * 4 and history["loss"][4] > 0  # step 52
    assert not np.allclose(agent.model.get_weights()[0], agent.target_model.get_weights()[0])
    agent.fit(Counter(), 61, verbose=0, initial_step=60)
    np.testing.assert_array_equal(agent.target_model.get_weights()[0], agent.model.get_weights()[0])


class TwoStates(gymnasium.Env):
    """Action 1 pays 0.5 in state 0 and 1 in state 1; action 2 pays nothing and leads to the other.

    It is cut off after 20 steps. With gamma 0.5 and no end Q-values are [[1, 1], [2, 0.5]].
    """

    observation_space = Dict({"state": Discrete(2)})
    action_space = Discrete(2, start=1)
    ends = False  # after each step

    def reset(self, seed=None, options=None):
        self.state, self.time = 0, 0
        return {"state": 0}, {}

    def step(self, action):
        reward = {1: [0.5, 1.0][self.state], 2: 0.0}[action]
        self.state, self.time = (self.state + action - 1) % 2, self.time + 1
        return {"state": self.state}, reward, self.ends, self.time == 20, {}


gymnasium.register("TwoStates-v0", TwoStates)


@pytest.mark.parametrize(("ends", "wanted"), [(False, [[1, 1], [2, 0.5]]), (True, [[0.5, 0]])])
def test_two_state_world_is_solved(ends, wanted):
    """Q-values of the Bellman equation: after a time limit it would go on, after an end not."""
    keras.utils.set_random_seed(0)
    agent = make_agent(None, keras.optimizers.Adam(0.03), num_states=2, gamma=0.5)
    env = TwoStates()
    env.ends = ends
    agent.fit(gymnasium.wrappers.FlattenObservation(env), 400, verbose=0)
    states = np.eye(2, dtype="float32")[: len(wanted)]
    q = [agent.compute_q_values(state[None]) for state in states]
    np.testing.assert_allclose(q, wanted, atol=0.05)


@pytest.mark.slow
def test_an_environment_of_ones_own(monkeypatch, tmp_path):
    """A dict of observations, actions from 1: the first step leads to state 1, 19 are paid."""
    monkeypatch.chdir(tmp_path)
    run_main(monkeypatch, CARTPOLE, "--env", f"{__name__}:TwoStates-v0", "--nb-steps", 2000)
    metrics = json.loads((tmp_path / "runs" / "dqn_TwoStates-v0" / "metrics.json").read_text())
    assert metrics["test"]["mean_reward"] == 19


class Dicts(core.Processor):
    def process_observation(self, array):
        return {"n": array, "image": np.full((2, 2), array[0], "uint8")}

    def process_reward(self, reward):
        return min(reward, 2.0)

    def process_action(self, action):
        return 1 - action


def test_processors_and_dicts_of_observations():
    inputs = {"n": keras.Input((2, 1), name="n"), "image": keras.Input((2, 2, 2), name="image")}
    x = layers.Concatenate()([layers.Flatten()(inputs["n"]), layers.Flatten()(inputs["image"])])
    model, ring = keras.Model(inputs, layers.Dense(2)(x)), memory.SequentialMemory(50, 2)
    agent, env = make_agent(model, memory=ring, processor=Dicts()), Counter(4, truncated=True)
    history = agent.fit(env, 40, verbose=0).history
    assert history["nb_episode_steps"] == [4] * 10 and history["loss"][-1] > 0
    assert history["episode_reward"] == [1 + 2 + 2 + 2] * 10
    # The environment uses its array again, and an episode is followed by one entry more.
    assert ring.observations["n"][:6, 0].tolist() == [0, 1, 2, 3, 4, 0]
    assert ring.no_action[4] and not ring.terminals.any()
    assert ring.actions[48] == 1 - env.action
    image = ring.sample(1, [3])[0].state0["image"]
    assert image[:, 1, 1].tolist() == [2, 3] and image.dtype == np.uint8


def test_actions_are_repeated_and_episodes_cut_off_and_started_later():
    agent = make_agent()
    history = agent.fit(Counter(), 3, action_repetition=2, verbose=0).history
    assert history["nb_episode_steps"] == [3] and history["episode_reward"] == [15.0]
    history = agent.fit(Counter(9), 12, nb_max_episode_steps=4, verbose=0).history
    assert history["nb_episode_steps"] == [4, 4, 4] and not agent.memory.terminals[4:].any()
    seen, agent = [], make_agent()
    options = {"nb_max_start_steps": 4, "start_step_policy": lambda o: seen.append(o[0]) or 0}
    history = agent.fit(Counter(9), 60, verbose=0, **options).history
    starts = [9 - steps for steps in history["nb_episode_steps"]]
    assert len(set(starts)) > 1 and set(starts) <= {0, 1, 2, 3} and set(seen) <= {0, 1, 2}
    assert agent.memory.observations[0, 0] == starts[0]


def test_ctrl_c_ends_a_training_in_order():
    agent, interrupt = make_agent(), callbacks.Callback()
    interrupt.on_episode_end = Mock(side_effect=KeyboardInterrupt)
    interrupt.on_train_end = Mock()
    agent.fit(Counter(2), 99, callbacks=[interrupt], verbose=0)
    interrupt.on_train_end.assert_called_once_with({"did_abort": True})
    assert agent.step == 2


def test_log_has_keras_rls_figures(tmp_path, capsys):
    logger = callbacks.FileLogger(tmp_path / "log.json")
    make_agent().fit(Counter(), 52, callbacks=[logger], log_interval=20)
    log = json.loads((tmp_path / "log.json").read_text())
    assert log["episode"] == list(range(10)) and log["episode_reward"] == [15.0] * 10
    assert 0 < sum(log["duration"]) < 60 and log["loss"][0] is None and log["loss"][-1] > 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Step 20", "Step 40"]


def test_weights_of_the_book_are_written_and_read(tmp_path):
    """With its suffix, also keras-rl's own, of Keras 2."""
    agent, other = make_agent(), make_agent()
    saver = callbacks.ModelIntervalCheckpoint(tmp_path / "dqn_{step}.h5f", 5)
    agent.fit(Counter(), 9, callbacks=[saver], verbose=0)
    other.load_weights(tmp_path / "dqn_5.h5f")
    np.testing.assert_array_equal(other.target_model.get_weights()[0], agent.model.get_weights()[0])
    with h5py.File(tmp_path / "old.h5f", "w") as file:
        file.attrs["layer_names"] = [b"dense_1"]
        group = file.create_group("dense_1")
        group.attrs["weight_names"] = [b"dense_1/kernel:0", b"dense_1/bias:0"]
        group["dense_1/kernel:0"], group["dense_1/bias:0"] = [[3.0, 4.0]], [5.0, 6.0]
    other.load_weights(tmp_path / "old.h5f")
    assert [w.tolist() for w in other.model.get_weights()] == [[[3, 4]], [5, 6]]


def test_the_best_network_is_kept_and_a_run_goes_on_with_its_optimizer(tmp_path):
    """Of trials with scores 1, 3, 2, 3 the last 3 is kept, where the training goes on, too."""
    folder, agent, scores = tmp_path / "run", make_agent(), iter([1, 3, 2, 3, 2])
    log = callbacks.FileLogger(folder / "log.json")
    keepers = [log, runs.KeepNetworks(folder, Counter(), log, interval=10, episodes=2)]
    agent.test = lambda *_, **__: SimpleNamespace(history={"episode_reward": [next(scores)]})
    assert runs.open_run(folder, {"seed": 1}) == (None, 0, 0)
    agent.fit(Counter(), 38, callbacks=keepers, verbose=0)
    note = {"mean_reward": 3.0, "step": 38, "episodes": 2}
    assert json.loads((folder / "best.json").read_text()) == note
    model, step, episode = runs.open_run(folder, {"seed": 1})
    assert (step, episode) == (38, 7)
    assert int(model.optimizer.iterations) == int(agent.optimizer.iterations) > 10
    agent.fit(Counter(), 45, callbacks=keepers, verbose=0, initial_step=38, initial_episode=7)
    assert json.loads((folder / "best.json").read_text()) == note


def test_a_run_shorter_than_an_episode_goes_on(tmp_path):
    folder, agent = tmp_path / "run", make_agent()
    runs.open_run(folder, {"seed": 1})
    log = callbacks.FileLogger(folder / "log.json")
    keepers = [log, runs.KeepNetworks(folder, Counter(), log, interval=10, episodes=1)]
    agent.fit(Counter(), 3, callbacks=keepers, verbose=0)
    assert runs.open_run(folder, {"seed": 1})[1:] == (3, 0)


@pytest.mark.slow
def test_it_trains_with_jax(tmp_path):
    pytest.importorskip("jax")
    options = ["--nb-steps", 1400, "--max-episode-steps", 9, "--run-dir", tmp_path / "run"]
    result = run_python(CARTPOLE, *options, env={"KERAS_BACKEND": "jax"})
    assert result.returncode == 0, result.stderr
    log = json.loads((tmp_path / "run" / "log.json").read_text())
    assert log["mean_q"][-1] > 2 + log["mean_q"][log["loss"].count(None)], log["mean_q"]


@pytest.mark.slow
def test_shipped_weights_land(monkeypatch, capsys, tmp_path):
    pytest.importorskip("Box2D")
    script, film = "chapter12/dqn_lunar_lander_test.py", tmp_path / "landing.gif"
    run_main(monkeypatch, script, "--episodes", 2, "--seed", 1, "--video", film)
    assert film.stat().st_size > 10_000 and "2 of 2 reached 200" in capsys.readouterr().out
    wide = tmp_path / "model.keras"  # of other --units, whole
    load_script("chapter12/dqn_lunar_lander.py").build_model(units=(8,)).save(wide)
    run_main(monkeypatch, script, "--episodes", 1, "--weights", wide)
    assert "of 1 reached 200" in capsys.readouterr().out


def test_table_finds_the_way():
    """The lake without slipping has a way of six steps: its value is 0.99 to the fifth."""
    table = load_script("chapter12/q_learning_table.py")
    env = gymnasium.make("FrozenLake-v1", is_slippery=False)
    Q = table.learn(env, 3000, seed=1)
    assert table.play(env, lambda state: Q[state].argmax(), 20) == 1.0
    assert Q[0].max() == pytest.approx(0.99**5, abs=0.01)
    assert table.solve(env)[0].max() == pytest.approx(0.99**5)


def test_breakout_is_the_papers():
    """Maximum of two frames, a random start, the end at a lost life, DeepMind's network."""
    pytest.importorskip("ale_py")
    script = load_script("chapter12/dqn_breakout.py")
    assert script.build_model().count_params() == 1_686_180
    env = script.make_env(training=True)
    first, terminated = env.reset(seed=1)[0], False
    assert first.shape == (84, 84) and first.dtype == np.uint8 and first.std() > 10
    while not terminated:
        _, reward, terminated, _, _ = env.step(env.action_space.sample())
        assert reward in (0, 1)
    assert env.unwrapped.ale.lives() == 4


@pytest.mark.slow
def test_keras_rls_own_tests_pass(tmp_path):
    """Those of memory, core, util and DQN; not NAF's, nor what Keras 3 forbids (two clippings)."""
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
    files = ["rl/test_memory.py", "rl/test_core.py", "rl/test_util.py", "rl/agents/test_dqn.py"]
    options = ["-pno:cacheprovider", "-k", "not (continuous or naf or clone_optimizer) or string"]
    command = [sys.executable, "-m", "pytest", *options, *files]
    result = subprocess.run(command, cwd=tests, capture_output=True, text=True)
    assert "13 passed, 5 deselected" in result.stdout, result.stdout
