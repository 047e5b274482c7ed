"""Chapter 12: known answers for memory, policies, targets and updates; an agent that learns."""

import json
import signal
import sys
import time

import gymnasium
import keras
import numpy as np
import pytest
from conftest import ROOT, assert_clear_error, load_script, run_python, start_python
from keras import layers

CARTPOLE = "chapter12/dqn_cartpole.py"


@pytest.fixture(scope="module", autouse=True)
def chapter12_on_the_path():
    """The scripts import `rl` and `visualize_log` from their own folder."""
    sys.path.insert(0, str(ROOT / "chapter12"))
    yield
    sys.path.remove(str(ROOT / "chapter12"))


@pytest.fixture(scope="module")
def rl():
    import rl.agents.dqn
    import rl.callbacks
    import rl.memory
    import rl.policy
    import rl.processor

    return rl


def network(num_states=1, num_actions=2, units=None):
    """States (n, 1, num_states) to Q-values; linear, or with one hidden layer."""
    inputs = keras.Input(shape=(1, num_states))
    x = layers.Flatten()(inputs)
    if units:
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(num_actions, use_bias=not units)(x))


def make_agent(rl, model=None, **options):
    options = {"nb_steps_warmup": 20, "batch_size": 16, "target_model_update": 0.05} | options
    memory = rl.memory.SequentialMemory(1000, seed=0)
    policy = rl.policy.EpsGreedyQPolicy(eps=1.0, seed=0)
    model = network() if model is None else model
    agent = rl.agents.dqn.DQNAgent(model, 2, memory, policy, **options)
    agent.compile(keras.optimizers.Adam(0.01))
    return agent


# --- memory -----------------------------------------------------------------------------------


def fill(memory, episodes):
    """Episodes of observations, each numbered; the reward is the observation, too."""
    for observations, terminal in episodes:
        for i, observation in enumerate(observations[:-1]):
            last = i == len(observations) - 2
            memory.append(
                np.float32([observation]), observation % 3, observation, last and terminal
            )
        memory.append_last(np.float32([observations[-1]]))


def test_samples_are_steps_that_happened(rl):
    memory = rl.memory.SequentialMemory(100, seed=0)
    fill(memory, [([1, 2, 3], True), ([10, 11], False), ([20, 21, 22], True)])
    batch = memory.sample(500)
    assert batch.state0.shape == (500, 1, 1) and batch.state0.dtype == np.float32
    seen = {
        (int(s0), int(a), int(r), int(s1), bool(t))
        for s0, a, r, s1, t in zip(
            batch.state0[:, 0, 0],
            batch.action,
            batch.reward,
            batch.state1[:, 0, 0],
            batch.terminal1,
            strict=True,
        )
    }
    assert seen == {
        (1, 1, 1, 2, False),
        (2, 2, 2, 3, True),
        (10, 1, 10, 11, False),  # cut off by a time limit: what would follow counts
        (20, 2, 20, 21, False),
        (21, 0, 21, 22, True),
    }


def test_windows_end_at_episode_borders(rl):
    memory = rl.memory.SequentialMemory(100, window_length=3, seed=0)
    fill(memory, [([1, 2, 3, 4], True), ([10, 11, 12], True)])
    batch = memory.sample(500)
    windows = {
        (tuple(map(int, a[:, 0])), tuple(map(int, b[:, 0])))
        for a, b in zip(batch.state0, batch.state1, strict=True)
    }
    assert windows == {
        ((0, 0, 1), (0, 1, 2)),
        ((0, 1, 2), (1, 2, 3)),
        ((1, 2, 3), (2, 3, 4)),
        ((0, 0, 10), (0, 10, 11)),
        ((0, 10, 11), (10, 11, 12)),
    }


def test_recent_state(rl):
    memory = rl.memory.SequentialMemory(100, window_length=3)
    recent = lambda n: memory.get_recent_state(np.float32([n]))[:, 0].tolist()  # noqa: E731
    assert recent(1) == [0, 0, 1]
    memory.append(np.float32([1]), 0, 0, False)
    assert recent(2) == [0, 1, 2]
    memory.append(np.float32([2]), 0, 0, False)
    memory.append(np.float32([3]), 0, 0, False)
    assert recent(4) == [2, 3, 4]
    memory.append_last(np.float32([4]))
    assert recent(5) == [0, 0, 5], "a window reached into the episode before"


@pytest.mark.parametrize("window_length", [1, 4])
def test_full_ring_gives_whole_windows_only(rl, window_length):
    """After the ring has gone round, no window holds frames that were overwritten."""
    memory = rl.memory.SequentialMemory(50, window_length=window_length, seed=0)
    fill(memory, [(list(range(start, start + 17)), True) for start in range(1, 1000, 17)])
    assert memory.nb_entries == 50
    batch = memory.sample(2000)
    for state in np.concatenate([batch.state0, batch.state1])[..., 0]:
        newest = state[-1]
        start = 1 + (newest - 1) // 17 * 17  # of its episode
        wanted = [max(newest - k, 0) if newest - k >= start else 0 for k in range(window_length)]
        np.testing.assert_array_equal(state, wanted[::-1])
    assert batch.state0[:, -1, 0].min() >= 1000 // 17 * 17 + 17 - 50


def test_images_stay_bytes(rl):
    memory = rl.memory.SequentialMemory(20, window_length=2)
    frame = np.full((84, 84), 200, "uint8")
    for _ in range(5):
        memory.append(frame, 0, 0, False)
    assert memory.observations.dtype == np.uint8 and memory.sample(3).state0.dtype == np.uint8
    assert memory.observations.nbytes == 20 * 84 * 84  # each frame once, whatever the window


def test_memory_without_a_step(rl):
    memory = rl.memory.SequentialMemory(10)
    with pytest.raises(ValueError, match="no complete step"):
        memory.sample(1)
    memory.append_last(np.float32([1]))
    memory.append(np.float32([1]), 0, 0, False)  # its successor is not there yet
    with pytest.raises(ValueError, match="no complete step"):
        memory.sample(1)


# --- policies ---------------------------------------------------------------------------------


def test_epsilon_schedule(rl):
    policy = rl.policy.LinearAnnealedPolicy(
        rl.policy.EpsGreedyQPolicy(), "eps", 1.0, 0.1, 0.05, 10_000
    )
    agent = make_agent(rl)
    policy.agent, agent.training = agent, True
    for step, eps in [(0, 1.0), (5000, 0.55), (10_000, 0.1), (50_000, 0.1)]:
        agent.step = step
        policy.select_action(np.zeros(2))
        assert policy.inner_policy.eps == pytest.approx(eps)
    agent.training = False
    policy.select_action(np.zeros(2))
    assert policy.inner_policy.eps == 0.05


def test_policies_pick_as_they_say(rl):
    q = np.array([0.0, 2.0, 1.0])
    assert rl.policy.GreedyQPolicy().select_action(q) == 1
    eps = rl.policy.EpsGreedyQPolicy(eps=0.3, seed=0)
    counts = np.bincount([eps.select_action(q) for _ in range(5000)], minlength=3) / 5000
    np.testing.assert_allclose(counts, [0.1, 0.8, 0.1], atol=0.02)
    boltzmann = rl.policy.BoltzmannQPolicy(tau=1.0, seed=0)
    counts = np.bincount([boltzmann.select_action(q) for _ in range(5000)], minlength=3) / 5000
    np.testing.assert_allclose(counts, np.exp(q) / np.exp(q).sum(), atol=0.02)
    assert boltzmann.select_action([0.0, 1e6, 0.0]) == 1  # does not overflow
    with pytest.raises(ValueError, match="no attribute tau"):
        rl.policy.LinearAnnealedPolicy(eps, "tau", 1, 0, 0, 10)


# --- targets and updates ----------------------------------------------------------------------


def test_targets_of_dqn_and_double_dqn(rl):
    """By hand: the network prefers action 0 (value 5 in the target), the target action 1 (7)."""
    states, ones = np.ones((2, 1, 1), "float32"), np.ones(2, "float32")
    ends = np.array([False, True])
    for double, value in ((False, 7.0), (True, 5.0)):
        agent = make_agent(rl, enable_double_dqn=double, gamma=0.5)
        agent.model.layers[-1].set_weights([np.float32([[3, 2]]), np.zeros(2, "float32")])
        agent.target_model.layers[-1].set_weights([np.float32([[5, 7]]), np.zeros(2, "float32")])
        targets = agent.compute_targets(ones, states, ends).numpy()
        np.testing.assert_allclose(targets, [1 + 0.5 * value, 1.0])  # nothing follows the end


def test_huber_loss_by_hand(rl):
    """Errors of 0.5 and 3: squared 0.125 and 4.5; with a clip of 1: 0.125 and 2.5."""
    for clip, loss in ((np.inf, 4.625 / 2), (1.0, 2.625 / 2)):
        agent = make_agent(rl, delta_clip=clip, batch_size=2, target_model_update=10)
        agent.model.layers[-1].set_weights([np.zeros((1, 2), "float32"), np.zeros(2, "float32")])
        values = agent._train(
            np.ones((2, 1, 1), "float32"),
            np.int32([0, 1]),
            np.float32([0.5, 3]),
            np.ones((2, 1, 1), "float32"),
            np.array([True, True]),
        ).numpy()
        np.testing.assert_allclose(values, [loss, 1.75, 0.0], rtol=1e-6)


def train_once(agent, step):
    agent.step = step
    return agent.backward()


def test_soft_and_hard_updates(rl):
    def filled(**options):
        agent = make_agent(rl, **options)
        fill(agent.memory, [(list(range(1, 40)), True)])
        return agent

    agent = filled(target_model_update=0.25)
    before = agent.target_model.get_weights()
    assert not train_once(agent, 20), "learned before the warm-up was over"
    assert train_once(agent, 21)
    for old, target, new in zip(
        before, agent.target_model.get_weights(), agent.model.get_weights(), strict=True
    ):
        assert not np.array_equal(old, new)
        np.testing.assert_allclose(target, 0.75 * old + 0.25 * new, rtol=1e-5)

    agent = filled(target_model_update=100, train_interval=4)
    assert not train_once(agent, 22) and train_once(agent, 24)
    assert not np.array_equal(agent.target_model.get_weights()[0], agent.model.get_weights()[0])
    train_once(agent, 100)
    for target, new in zip(
        agent.target_model.get_weights(), agent.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(target, new)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("avg", [[7.5, 12.5]]), ("max", [[5.0, 10.0]]), ("naive", [[12.0, 17.0]])],
)
def test_dueling_types(rl, kind, wanted):
    """Value 10, advantages 2 and 7: their mean is 4.5, their maximum 7."""
    inputs = keras.Input((1, 1))
    x = layers.Flatten()(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model = rl.agents.dqn.make_dueling(model, 2, kind)
    layer = model.get_layer("value_and_advantages")
    layer.set_weights([np.float32([[10, 2, 7]]), np.zeros(3, "float32")])
    np.testing.assert_allclose(model(np.ones((1, 1, 1))), wanted, rtol=1e-6)


# --- a world of two states --------------------------------------------------------------------


class TwoStates(gymnasium.Env):
    """In state 0, action 0 pays 0.5 and stays, action 1 pays nothing and leads to state 1.

    In state 1, action 0 pays 1 and stays, action 1 pays nothing and leads back. It never ends, but
    is cut off after `limit` steps. With gamma 0.5: Q(1, 0) = 2, Q(0, 1) = Q(1, 1) / 1 = 1 …
    """

    observation_space = gymnasium.spaces.Box(0, 1, (2,), "float32")
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, limit=5, ends=False):
        self.limit, self.ends = limit, ends

    def observe(self):
        return np.eye(2, dtype="float32")[self.state]

    def reset(self, seed=None, options=None):
        self.state, self.time = 0, 0
        return self.observe(), {}

    def step(self, action):
        reward = [0.5, 1.0][self.state] * (action == 0)
        self.state = (self.state + action) % 2
        self.time += 1
        over = self.time >= self.limit
        return self.observe(), reward, over and self.ends, over and not self.ends, {}


@pytest.mark.parametrize("double", [False, True])
def test_two_state_world_is_solved(rl, double):
    """Q = [[1, 1], [2, 0.5]] by the Bellman equation with gamma 0.5; cut-offs must not count."""
    keras.utils.set_random_seed(0)
    agent = make_agent(rl, network(2, 2), gamma=0.5, enable_double_dqn=double, nb_steps_warmup=100)
    agent.fit(TwoStates(), 3000, verbose=0)
    q = [agent.compute_q_values(state[None]) for state in np.eye(2, dtype="float32")]
    np.testing.assert_allclose(q, [[1.0, 1.0], [2.0, 0.5]], atol=0.05)


def test_ends_are_not_cut_offs(rl):
    """The same world with real ends after one step: nothing follows, Q(0, .) = [0.5, 0]."""
    keras.utils.set_random_seed(0)
    agent = make_agent(rl, network(2, 2), gamma=0.5, nb_steps_warmup=100)
    agent.fit(TwoStates(limit=1, ends=True), 1500, verbose=0)
    np.testing.assert_allclose(agent.compute_q_values(np.float32([[1, 0]])), [0.5, 0], atol=0.05)


def test_best_network_is_kept(rl, tmp_path):
    """Of trials with scores 1, 3, 2, 3 the last 3 is kept, after a resumption, too."""
    agent = make_agent(rl, network(2, 2))
    path = tmp_path / "best" / "dqn.weights.h5"
    scores, kept = iter([1, 3, 2, 3, 2]), []
    agent.test = lambda env, episodes, **options: [next(scores)] * episodes
    agent.save_weights = lambda filepath: kept.append(agent.step)
    keeper = rl.callbacks.KeepBest(path, TwoStates(), interval=10, episodes=2)
    agent.fit(TwoStates(limit=5), 38, callbacks=[keeper], verbose=0)
    assert kept == [10, 20, 38]
    assert json.loads(keeper.score_path.read_text()) == {"mean_reward": 3.0, "step": 38}
    agent.fit(TwoStates(limit=5), 45, callbacks=[keeper], verbose=0)
    assert kept == [10, 20, 38]


def test_trials_leave_the_training_alone(rl, tmp_path):
    """With greedy games every 10 steps the agent ends with the same weights as without."""
    agents = []
    for callbacks in ([], [rl.callbacks.KeepBest(tmp_path / "w.weights.h5", TwoStates(), 10)]):
        keras.utils.set_random_seed(0)
        agents.append(make_agent(rl, network(2, 2)))
        agents[-1].fit(TwoStates(), 100, callbacks=callbacks, verbose=0)
    plain, tried = (agent.model.get_weights()[0] for agent in agents)
    np.testing.assert_array_equal(plain, tried)
    assert (tmp_path / "w.weights.h5").exists()


# --- files ------------------------------------------------------------------------------------


def test_checkpoint_brings_everything_back(rl, tmp_path):
    agent = make_agent(rl)
    env = gymnasium.wrappers.TransformObservation(
        TwoStates(), lambda o: o[:1], gymnasium.spaces.Box(0, 1, (1,), "float32")
    )
    agent.fit(env, 200, verbose=0)
    agent.save_checkpoint(tmp_path / "checkpoint")
    other = make_agent(rl)
    assert other.load_checkpoint(tmp_path / "checkpoint") == 200
    assert other.episode == agent.episode and other.memory.nb_entries == agent.memory.nb_entries
    for mine, theirs in zip(
        [*other.model.get_weights(), *other.target_model.get_weights()],
        [*agent.model.get_weights(), *agent.target_model.get_weights()],
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
    # Same memory, same random numbers, same optimizer: both go on alike.
    agent.fit(env, 300, verbose=0)
    other.fit(env, 300, verbose=0)
    np.testing.assert_array_equal(agent.model.get_weights()[0], other.model.get_weights()[0])

    assert make_agent(rl).load_checkpoint(tmp_path / "nothing") == 0
    (tmp_path / "checkpoint" / "variables.npz").write_bytes(b"PK half-written")
    with pytest.raises(ValueError, match="cannot be used"):
        make_agent(rl).load_checkpoint(tmp_path / "checkpoint")


def test_what_does_not_fit_is_named(rl, tmp_path):
    with pytest.raises(ValueError, match=r"expected \(None, 3\), one Q-value for each action"):
        rl.agents.dqn.DQNAgent(network(), 3, rl.memory.SequentialMemory(10))
    agent = make_agent(rl)
    with pytest.raises(ValueError, match=r"action space is Box.*needs Discrete\(2\)"):
        agent.fit(gymnasium.make("Pendulum-v1"), 10, verbose=0)
    with pytest.raises(OSError, match="does not exist"):
        agent.load_weights(tmp_path / "none.weights.h5")
    (tmp_path / "bad.weights.h5").write_text("no weights")
    with pytest.raises(ValueError, match="does not hold weights of this network"):
        agent.load_weights(tmp_path / "bad.weights.h5")
    make_agent(rl, network(1, 2, units=8)).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ValueError, match="does not hold weights of this network"):
        agent.load_weights(tmp_path / "other.weights.h5")


# --- scripts ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_cartpole_learns(run_script, tmp_path):
    """After 6,000 steps it balances three times as long as random pushes do, or longer."""
    run_dir = tmp_path / "run"
    result = run_script(CARTPOLE, "--nb-steps", 6000, "--run-dir", run_dir, "--verbose", 0)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["parameters"] == 658
    assert metrics["baselines"]["random_mean_reward"] < 40
    assert metrics["test"]["mean_reward"] > 60, metrics["test"]
    log = json.loads((run_dir / "log.json").read_text())
    assert len({len(values) for values in log.values()}) == 1
    assert log["nb_steps"][-1] == 6000 and log["loss"][0] is None and log["loss"][-1] > 0
    assert (run_dir / "rewards.png").stat().st_size > 5000
    assert list((run_dir / "tb").iterdir())

    picture = tmp_path / "two.png"
    logs = [run_dir / "log.json"] * 2
    result = run_script("chapter12/visualize_log.py", *logs, "--output", picture)
    assert result.returncode == 0 and picture.exists(), result.stderr
    result = run_script("chapter12/visualize_log.py", tmp_path / "none.json")
    assert_clear_error(result, "none.json does not exist")


@pytest.mark.slow
def test_killed_training_goes_on(tmp_path):
    """kill -9 after the first checkpoint; the same command goes on with memory and epsilon."""
    run_dir = tmp_path / "run"
    command = [CARTPOLE, "--nb-steps", 9000, "--run-dir", run_dir]
    process = start_python(*command)
    counters = run_dir / "checkpoint" / "counters.json"
    deadline = time.monotonic() + 200
    while not counters.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    step = json.loads(counters.read_text())["step"]
    assert 5000 <= step < 9000

    result = run_python(*command)
    assert result.returncode == 0, result.stderr
    assert f"after step {step:,} " in result.stdout and "entries in memory" in result.stdout
    log = json.loads((run_dir / "log.json").read_text())
    assert log["nb_steps"] == sorted(log["nb_steps"]) and log["nb_steps"][-1] == 9000
    assert log["episode"] == list(range(1, len(log["episode"]) + 1))
    after = log["nb_steps"].index(min(s for s in log["nb_steps"] if s > step))
    assert log["mean_eps"][after] < 0.6  # epsilon goes on where it was, not at 1
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None and metrics["test"]["mean_reward"] > 60


def test_missing_physics_is_named(monkeypatch):
    """Without Box2D, gymnasium's error becomes the command that installs it."""
    script = load_script(ROOT / "chapter12" / "dqn_lunar_lander.py")

    def make(*args, **options):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(script.gymnasium, "make", make)
    with pytest.raises(OSError, match=r'pip install "gymnasium\[box2d\]"'):
        script.make_env()


def test_table_finds_the_way():
    """The lake without slipping has a way of six steps: its value is 0.99 to the fifth."""
    table = load_script("chapter12/q_learning_table.py")
    env = gymnasium.make(table.ENV_NAME, is_slippery=False)
    right = table.solve(env)
    assert right[0].max() == pytest.approx(0.99**5)
    Q = table.learn(env, 3000, seed=1)
    assert table.play(env, lambda state: int(Q[state].argmax()), 20) == 1.0
    assert Q[0].max() == pytest.approx(0.99**5, abs=0.01)
    slippery = gymnasium.make(table.ENV_NAME, is_slippery=True)
    assert table.solve(slippery)[0].max() == pytest.approx(0.542, abs=0.001)


# --- Atari ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def breakout():
    pytest.importorskip("ale_py", reason="ale-py, the Atari emulator, is not installed")
    return load_script("chapter12/dqn_breakout.py")


def test_frames_are_prepared_as_another_library_does(breakout, rl):
    """Grey as the emulator computes it, made smaller as TensorFlow does it (triangle filter)."""
    import tensorflow as tf

    env = breakout.make_env()
    observation, _ = env.reset(seed=1)
    for step in range(40):
        observation, *_ = env.step(step % 4)
    frame = rl.processor.AtariProcessor().process_observation(observation)
    grey = env.unwrapped.ale.getScreenGrayscale()[..., None]
    reference = tf.image.resize(grey, (84, 84), antialias=True).numpy()[..., 0]
    assert frame.shape == (84, 84) and frame.dtype == np.uint8 and frame.std() > 10
    assert np.abs(frame - reference).max() <= 2
    assert [rl.processor.AtariProcessor().process_reward(r) for r in (7.0, -3.0, 0.0)] == [1, -1, 0]


def test_breakout_network_is_deepminds(breakout):
    model = breakout.build_model()
    assert model.count_params() == 1_686_180  # 8,224 + 32,832 + 36,928 + 1,606,144 + 2,052
    assert model.output_shape == (None, 4)


def test_million_frames_fit_into_8_gigabytes(rl):
    """Shown at 100,000: 84 * 84 bytes a frame and 14 for the rest, whatever the window."""
    memory = rl.memory.SequentialMemory(100_000, window_length=4)
    memory.append(np.zeros((84, 84), "uint8"), 0, 0.0, False)
    arrays = (memory.actions, memory.rewards, memory.terminals, memory.lasts, memory.times)
    size = memory.observations.nbytes + sum(array.nbytes for array in arrays)
    assert size == 100_000 * (84 * 84 + 14)
    assert 10 * size < 8e9


def test_missing_emulator_is_named(breakout, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(OSError, match="pip install ale-py"):
        breakout.make_env()


def test_other_backends_are_refused(rl, monkeypatch):
    script = load_script("chapter12/dqn_cartpole.py")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="needs the TensorFlow backend"):
        script.build_agent(seed=1)
