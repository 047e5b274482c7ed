"""Chapter 9: RNN and LSTM by hand, other people's prices, the stateful LSTM, fair comparisons."""

import json
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script, run_python, start_python
from contract import refuse
from PIL import Image

LSTM, STATEFUL = "chapter09/lstm_bitcoin.py", "chapter09/lstm_bitcoin_stateful.py"
GRAPH = "chapter09/predict_and_graph.py"


@pytest.fixture(scope="module")
def rnn():
    return load_script("chapter09/rnn_from_scratch.py")


@pytest.fixture(scope="module")
def chapter():
    """The scripts, which find each other as if started from the command line."""
    names = ("lstm_bitcoin", "lstm_bitcoin_stateful", "baselines", "predict_and_graph")
    sys.path.insert(0, str(ROOT / "chapter09"))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in names})
    finally:
        sys.path.remove(str(ROOT / "chapter09"))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def lstm(chapter):
    return chapter.lstm_bitcoin


@pytest.fixture(scope="module")
def stateful(chapter):
    return chapter.lstm_bitcoin_stateful


def walk(days=5, start="2017-05-29", memory=-0.6):
    """Made-up prices by the minute; `memory` is each change's share of the one before."""
    changes = np.random.default_rng(0).normal(0, 1, days * 1440)
    for i in range(1, len(changes)):
        changes[i] += memory * changes[i - 1]
    times = pd.date_range(start, periods=len(changes), freq="min", name="Time")
    close = (2000 + changes.cumsum()).round(2)
    prices = pd.DataFrame({"Open": close - 0.5, "High": close + 1, "Low": close - 1}, index=times)
    return prices.assign(Close=close, Volume=np.arange(len(close)) % 7 / 2)


def write_csv(path, prices):
    """As Kaggle's file has them: Unix seconds first."""
    table = prices.rename(columns={"Volume": "Volume_(BTC)"})
    table.insert(0, "Timestamp", prices.index.as_unit("s").asi8)
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def learnable(tmp_path_factory):
    """Three days to train, two to test; three fifths of a change are taken back a minute later."""
    return write_csv(tmp_path_factory.mktemp("prices") / "learnable.csv", walk())


# --- rnn_from_scratch.py ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_cells_equal_kerass(rnn, seed):
    """Random biases, too: with zeros a mixed-up order of the gates could pass unseen."""
    import keras

    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(5, 12, 3)).astype("float32")
    kinds = (keras.layers.SimpleRNN, rnn.rnn_forward), (keras.layers.LSTM, rnn.lstm_forward)
    for kind, forward in kinds:
        layer = kind(8, return_sequences=True)
        layer.build(inputs.shape)
        weights = [rng.normal(0, 0.5, weight.shape) for weight in layer.get_weights()]
        layer.set_weights(weights)
        ours = forward(inputs, *weights)
        ours = ours[0] if isinstance(ours, tuple) else ours
        np.testing.assert_allclose(ours, np.asarray(layer(inputs)), atol=1e-5)


def test_gates_one_by_one(rnn):
    """One unit, all weights 0: the biases alone decide, each gate at its place."""
    zeros, bias = np.zeros((1, 4)), np.array([2.0, -1.0, 0.5, 3.0])  # in, forget, candidate, out
    h, C, gates = rnn.lstm_step(zeros[:, :1], zeros[:, :1], np.array([[4.0]]), zeros, zeros, bias)
    s = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    assert gates[1] == pytest.approx(s(-1))
    assert pytest.approx(s(-1) * 4 + s(2) * np.tanh(0.5)) == C
    assert h == pytest.approx(s(3) * np.tanh(C))


def test_backpropagation_through_time_equals_finite_differences(rnn):
    """Nudge h (and C) before one step, see the last output change as the gradient says."""
    rng = np.random.default_rng(0)
    x, v, eps = rng.normal(size=(1, 6, 2)), rng.normal(size=(1, 3)), 1e-6
    U, W, b = rng.normal(size=(2, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
    outputs = rnn.rnn_forward(x, U, W, b)
    gradients = rnn.rnn_backward(outputs, W, v)
    K, R, bias = rng.normal(size=(2, 12)), rng.normal(size=(3, 12)), rng.normal(size=12)
    hs, steps = rnn.lstm_forward(x, K, R, bias)
    dh, dC = rnn.lstm_backward(steps, R, v)

    def rnn_end(h, t):
        for later in range(t + 1, 6):
            h = rnn.rnn_step(x[:, later], h, U, W, b)
        return (h * v).sum()

    def lstm_end(h, C, t):
        for later in range(t + 1, 6):
            h, C, _ = rnn.lstm_step(x[:, later], h, C, K, R, bias)
        return (h * v).sum()

    for t in (1, 3):
        h, C, out = hs[:, t], steps[t][1], steps[t][2][3]
        for unit, nudge in enumerate(eps * np.eye(3)):
            ends = [rnn_end(outputs[:, t] + sign * nudge, t) for sign in (1, -1)]
            assert gradients[0, t, unit] == pytest.approx(np.subtract(*ends) / 2 / eps, abs=1e-6)
            ends = [lstm_end(h + sign * nudge, C, t) for sign in (1, -1)]
            assert dh[0, t, unit] == pytest.approx(np.subtract(*ends) / 2 / eps, abs=1e-6)
            moved = [C + sign * nudge for sign in (1, -1)]  # moves h of the same step, too
            ends = [lstm_end(out * np.tanh(C), C, t) for C in moved]
            assert dC[0, t, unit] == pytest.approx(np.subtract(*ends) / 2 / eps, abs=1e-6)


def test_the_gates_keep_and_the_recurrent_weights_let_grow(rnn):
    """An open forget gate keeps half over 99 steps; the whole gradient grows a hundredfold."""
    lengths = rnn.measure_gradients()
    weak, rotation, strong = (lengths[f"simple RNN, weights × {x}"][-1] for x in (0.5, 1, 1.5))
    assert weak < 1e-15 < rotation < 0.01 and strong > 10
    for bias in (0, 1, 5):
        whole = lengths[f"LSTM, forget bias {bias}"]
        alone = lengths[f"LSTM, forget bias {bias}, gates alone"]
        assert (np.diff(alone) <= 0).all()  # a gate is 1 at most
        assert whole[-1] > 100 * alone[-1]
    gate = 1 / (1 + np.exp(-5))
    assert alone[-1] == pytest.approx(gate**99, rel=0.1)
    assert whole[-1] > 10


# --- the data ---------------------------------------------------------------------------------


def as_binance(prices):
    """Newest first, some rows twice, milliseconds, the time of the close as well."""
    milliseconds = prices.index.as_unit("ms").asi8
    table = prices.assign(**{"Open time": milliseconds, "Close time": milliseconds + 59_999})
    return pd.concat([table, table[100:200]]).iloc[::-1].to_csv(index=False)


def as_yahoo(prices):
    """Time zone and all; dividends and splits do not matter."""
    times = prices.index.tz_localize("UTC").tz_convert("Europe/London")
    return prices.assign(Datetime=times.astype(str), **{"Adj Close": 1.0}).to_csv(index=False)


def as_download(prices):
    """Two columns of times, two of volumes; semicolons."""
    table = prices.rename(columns=str.lower).rename(columns={"volume": "Volume BTC"})
    table.insert(0, "unix", prices.index.as_unit("us").asi8)
    table["date"], table["Volume USD"] = "yesterday", 1.0
    return table.to_csv(index=False, sep=";")


@pytest.mark.parametrize("make", [as_binance, as_yahoo, as_download])
def test_files_that_people_have_give_the_same_prices(lstm, tmp_path, make):
    prices = walk(days=1)
    (tmp_path / "mine.csv").write_text(make(prices), encoding="utf-8-sig")
    found = lstm.read_data(tmp_path / "mine.csv")[list(prices)]
    pd.testing.assert_frame_equal(found, prices, check_freq=False, check_index_type=False)


def test_minutes_without_a_trade_keep_the_last_price(lstm, tmp_path):
    prices = walk(days=1)[:8]
    prices.loc[prices.index[[0, 2, 7]]] = np.nan
    found = lstm.read_data(write_csv(tmp_path / "gaps.csv", prices.drop(prices.index[4:6])))
    close = prices["Close"].to_numpy()
    assert list(found.index) == list(prices.index[1:])  # nothing before the first trade
    assert found["Close"].tolist() == close[[1, 1, 3, 3, 3, 6, 6]].tolist()
    assert found["Volume"].tolist() == [0.5, 0, 1.5, 0, 0, 3, 0]
    still = found.iloc[[1, 3, 4, 6]]
    assert (still["High"] - still["Low"] == 0).all()


def test_windows_are_kerass_and_the_test_looks_back_into_training(lstm, learnable):
    """As timeseries_dataset_from_array makes them (46 µs each); no zeros where a day begins."""
    import keras

    data = lstm.load_data(learnable, inputs=["range", "volume"], lags=7)
    assert [len(data[f"{part}_y"]) for part in ("train", "val", "test")] == [3880, 432, 2880]
    flow = walk().assign(change=lambda prices: prices["Close"].diff())
    flow["range"], flow["volume"] = flow["High"] - flow["Low"], np.log1p(flow["Volume"])
    flow = flow[["change", "range", "volume"]].to_numpy("float32")[1:]
    windows = keras.utils.timeseries_dataset_from_array(
        flow[:-1], flow[7:, 0], 7, batch_size=len(flow)
    )
    X, y = (array.numpy() for array in next(iter(windows)))
    parts = ("train", "val", "test")
    assert np.array_equal(np.concatenate([data[f"{part}_X"] for part in parts]), X)
    assert np.array_equal(np.concatenate([data[f"{part}_y"] for part in parts]), y)
    times = data["test_times"]  # whole days: the book loses all of the last but one minute
    assert [times[0], times[-1]] == [pd.Timestamp("2017-06-01"), pd.Timestamp("2017-06-02 23:59")]
    assert np.array_equal(data["test_X"][0, :, 0], data["val_y"][-7:])


def test_nothing_looks_ahead(chapter, tmp_path):
    """Change the prices from now on: neither what now is forecast from nor a forecast moves."""
    prices, now = walk(days=4), pd.Timestamp("2017-06-01 12:01")
    files = [write_csv(tmp_path / "as it was.csv", prices)]
    prices.loc[now:] += 100 * np.random.default_rng(1).random(size=(719, 1))
    prices.loc[now : now + pd.Timedelta(minutes=5)] = np.nan
    files.append(write_csv(tmp_path / "changed.csv", prices))
    seen = []
    for file in files:
        data = chapter.lstm_bitcoin.load_data(file, inputs=["volume", "range"])
        known = np.asarray(data["test_times"] <= now)
        forecasts = chapter.baselines.forecast_baselines(data, [(1, 1, 0)])
        seen.append({name: values[known] for name, values in forecasts.items()})
        seen[-1] |= {"train": data["train_X"], "windows": data["test_X"][known]}
    assert len(seen[0]["windows"]) == 722 and len(forecasts) == 6
    for name in seen[0]:
        np.testing.assert_array_equal(seen[0][name], seen[1][name], err_msg=name)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
BAD_PRICES = {
    "pointer": (lambda prices: POINTER, {}, "Git LFS"),
    "names": (lambda prices: prices.to_csv(), {}, None),
    "no rows": (lambda prices: "Timestamp,Close\n", {}, "no rows"),
    "daily": (lambda prices: prices[::1440].to_csv(), {}, "1 days"),
    "constant": (lambda prices: prices.assign(Close=7.0).to_csv(), {}, "never changes"),
    "zero": (lambda prices: prices.replace(prices["Close"].iat[9], 0).to_csv(), {}, "above 0"),
    "infinite": (lambda p: p.replace(p["Close"].iat[9], np.inf).to_csv(), {}, "finite"),
    "no date": (lambda p: p.to_csv(), {"train_dates": ("first", "last")}, "first"),
    "no such days": (lambda p: p.to_csv(), {"test_dates": ("2018-01-01",) * 2}, "--train-dates"),
    "test first": (lambda p: p.to_csv(), {"test_dates": ("2017-05-30", "2017-06-02")}, "before"),
    "no volume": (lambda p: p[["Close"]].to_csv(), {"inputs": ["volume"]}, "Volume"),
}


@pytest.mark.parametrize("case", BAD_PRICES)
def test_prices_of_no_use_are_named(lstm, tmp_path, case):
    """Hourly candles once became minutes, nearly all of them "without a trade"."""
    make, options, words = BAD_PRICES[case]
    (tmp_path / "prices.csv").write_text(make(walk()))
    if words is None:  # these are fine
        assert len(lstm.load_data(tmp_path / "prices.csv", **options)["test_y"]) == 2880
        return
    with pytest.raises(Exception, match=words):
        lstm.load_data(tmp_path / "prices.csv", **options)


# --- the networks -----------------------------------------------------------------------------


def test_network_is_the_books(lstm, stateful):
    X = np.random.default_rng(0).normal(size=(500, 10, 1)).astype("float32")
    for model in (lstm.build_network(X), stateful.build_network(X, "minmax", 100, True)):
        assert " ".join(layer.name for layer in model.layers) == (
            "input scale lstm1 lstm2 output dollars"
        )
        assert model.count_params() == 121_301 and model.loss == "mean_squared_error"
        assert model.get_layer("lstm1").count_params() == 4 * 100 * (1 + 100 + 1)
        assert model.get_layer("output").activation.__name__ == "tanh"
    assert model.get_layer("lstm1").stateful and model.input_shape == (100, 10, 1)
    assert stateful.build_network(X, "std", 100).output_shape == (100, None, 1)


@pytest.mark.parametrize("scale", ["minmax", "std"])
def test_networks_take_and_give_dollars(lstm, scale):
    """The book's scale: the extremes are -1 and 1. The other: five standard deviations are 1."""
    import keras

    X = np.random.default_rng(0).exponential(3, size=(500, 10, 2)).astype("float32")
    model = lstm.build_network(X, scale)
    scaled = keras.Model(model.input, model.get_layer("scale").output).predict(X, verbose=0)[:, -1]
    bias, change = np.array([0.5], "float32"), X[:, -1, 0]
    model.get_layer("output").set_weights([np.zeros((100, 1), "float32"), bias])
    expected = model.predict(X[:3], verbose=0)
    if scale == "minmax":
        np.testing.assert_allclose(
            [scaled.min(axis=0), scaled.max(axis=0)], [[-1] * 2, [1] * 2], atol=1e-5
        )
        dollars = (change.max() + change.min()) / 2 + np.tanh(0.5) * np.ptp(change) / 2
    else:
        np.testing.assert_allclose(scaled.std(axis=0), 0.2, rtol=1e-4)
        dollars = change.mean() + 2.5 * change.std()
    np.testing.assert_allclose(expected, dollars, rtol=1e-4)


def test_streams_have_no_gap_and_no_overlap(stateful):
    series = np.arange(1, 1000, dtype="float32")
    X = np.stack([series[i : i + 5] for i in range(994)])[:, :, np.newaxis]
    windows, targets = stateful.make_streams(X, series[5:], 10)
    assert windows.shape == targets.shape == (190, 5, 1)
    assert np.array_equal(targets, windows + 1)  # the change after each minute
    assert np.array_equal(windows[10:, 0], targets[:-10, -1])  # goes on where the row ended
    assert targets.max() == series[-1] and len(np.unique(targets)) == targets.size
    X, y = stateful.make_streams(X, series[5:], 10, book_order=True)
    assert X.shape == (990, 5, 1) and np.array_equal(X[:, -1] + 1, y)


def test_stateful_forecasts_equal_one_long_memory(stateful, rnn):
    """In streams, or by the twin: what NumPy says that has read every minute before."""
    import keras

    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    series = rng.normal(size=245).astype("float32")
    X = np.stack([series[i : i + 5] for i in range(240)])[:, :, np.newaxis]
    model = stateful.build_network(X, "std", batch_size=4)
    twin = stateful.build_network(X, "std")
    twin.set_weights(model.get_weights())
    scale, dollars = model.get_layer("scale"), model.get_layer("dollars")
    *weights, V, c = model.get_weights()

    def remember_all(minutes):
        minutes = ((minutes - np.ravel(scale.mean)) / np.sqrt(np.ravel(scale.variance)))[np.newaxis]
        h, _ = rnn.lstm_forward(minutes[:, :, np.newaxis], *weights[:3])
        h, _ = rnn.lstm_forward(h, *weights[3:])
        return (h[0] @ V + c)[:, 0] * dollars.scale + dollars.offset

    np.testing.assert_allclose(stateful.forecast(twin, X), remember_all(series[:-1])[4:], atol=1e-5)
    weeks = rng.normal(size=3004).astype("float32")  # two days, and the rest of a day before them
    X = np.stack([weeks[i : i + 5] for i in range(3000)])[:, :, np.newaxis]
    days = [remember_all(weeks[start : start + 1444])[4:] for start in (0, 120, 1560)]
    expected = np.concatenate([days[0][:1440], days[1][1320:], days[2]])
    np.testing.assert_allclose(stateful.forecast(twin, X), expected, atol=1e-5)
    X = np.stack([series[i : i + 5] for i in range(240)])[:, :, np.newaxis]
    windows, _ = stateful.make_streams(X, series[5:], 4)
    answers = model.predict(windows, batch_size=4, verbose=0)
    for row in range(4):
        minutes = windows[row::4].ravel()
        np.testing.assert_allclose(answers[row::4].ravel(), remember_all(minutes), atol=1e-5)


def test_stateful_on_jax_is_refused(stateful, monkeypatch):
    """Keras 3.15 forgets there between batches without a word."""
    monkeypatch.setattr(stateful.keras.backend, "backend", lambda: "jax")
    X = np.random.default_rng(0).normal(size=(50, 10, 1))
    with pytest.raises(ValueError, match="TensorFlow only"):
        stateful.build_network(X, "std", batch_size=10)


@pytest.mark.slow
def test_only_carried_state_knows_what_is_beyond_the_window(stateful):
    """Each value repeats that of 8 minutes before, a window holds 4: it takes a memory."""
    import keras

    rng = np.random.default_rng(0)
    halves = rng.choice([-0.5, 0.5], (500, 1, 4)).repeat(2, axis=1)  # four, the same four again
    series = halves.ravel().astype("float32")
    X, y = np.stack([series[i : i + 4] for i in range(3996)])[:, :, np.newaxis], series[4:]
    losses = {}
    for book_order, epochs in ((False, 24), (True, 6)):  # about as many batches
        keras.utils.set_random_seed(1)
        model = stateful.build_network(X, "minmax", 40, book_order)
        model.optimizer.learning_rate = 0.006
        pair = stateful.make_streams(X, y, 40, book_order)
        fit = model.fit(*pair, batch_size=40, epochs=epochs, shuffle=book_order, verbose=0)
        losses[book_order] = min(fit.history["loss"])
    print(losses)  # half of it is chance: 0.125 is the best possible, 0.1875 without a memory
    assert losses[False] < 0.17 < 0.18 < losses[True]


# --- whole runs -------------------------------------------------------------------------------


def train(script, learnable, run_dir, *options):
    arguments = ("--data", learnable, "--run-dir", run_dir, "--scale", "std", *options)
    result = run_python(script, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((run_dir / "metrics.json").read_text()), result.stdout


@pytest.fixture(scope="module")
def each_minute(learnable, tmp_path_factory, slow_training):
    """The folder of a stateful run, four epochs in streams."""
    folder = tmp_path_factory.mktemp("each_minute") / "run"
    train(STATEFUL, learnable, folder, "--epochs", 4, "--batch-size", 10)
    return folder


@pytest.mark.slow
def test_streams_learn_and_val_loss_is_right(chapter, each_minute, learnable):
    """Once the first forecasts of a hundred empty memories were in it."""
    import keras

    history = pd.read_csv(each_minute / "history.csv")
    metrics = json.loads((each_minute / "metrics.json").read_text())
    data = chapter.lstm_bitcoin.load_data(learnable)
    model = keras.models.load_model(each_minute / "model.keras")
    expected = chapter.lstm_bitcoin_stateful.forecast(model, data["val_X"])
    loss = np.mean((expected - data["val_y"]) ** 2)
    assert history["val_loss"].min() == pytest.approx(loss, rel=1e-4)
    assert metrics["best_epoch"] == history["val_loss"].argmin() + 1
    assert metrics["test"]["rmse"] < 0.9 * metrics["baselines"]["last_value_rmse"]


@pytest.mark.slow
def test_killed_streams_go_on_to_the_very_end_of_an_unbroken_run(each_minute, learnable, tmp_path):
    arguments = ("--data", learnable, "--run-dir", tmp_path, "--scale", "std", "--batch-size", 10)
    script = ("tests/killed.py", "last half", ROOT / STATEFUL)
    process = start_python(*script, *arguments, "--epochs", 4)
    assert process.wait(300) == -signal.SIGKILL
    metrics, output = train(STATEFUL, learnable, tmp_path, "--epochs", 4, "--batch-size", 10)
    assert "Epoch 1/4" not in output and metrics["epochs"] == 4
    history = pd.read_csv(tmp_path / "history.csv")
    pd.testing.assert_frame_equal(history, pd.read_csv(each_minute / "history.csv"), rtol=1e-4)


@pytest.mark.slow
def test_book_order_goes_on_and_other_settings_are_refused(learnable, tmp_path):
    arguments = ("--book-order", "--batch-size", 100)
    train(STATEFUL, learnable, tmp_path, "--epochs", 1, *arguments)
    metrics, output = train(STATEFUL, learnable, tmp_path, "--epochs", 2, *arguments)
    assert "Epoch 2/2" in output and "Epoch 1/2" not in output and metrics["epochs"] == 2
    usual = ["--data", learnable, "--run-dir", tmp_path]
    seed = ["--book-order", "--scale", "std", "--seed", 2]
    refuse(STATEFUL, [usual, usual + seed, [*usual, "--lags", 5, "--evaluate"]], tmp_path)
    result = run_python(STATEFUL, *usual, "--evaluate")
    assert f"RMSE {metrics['test']['rmse']:.4f}" in result.stdout


@pytest.mark.slow
def test_graph_and_baselines_of_a_run(chapter, each_minute, learnable, tmp_path):
    usual = ["--data", learnable, "--run-dir", each_minute, "--days"]
    result = run_python(GRAPH, *usual, "2017-06-02", "2017-06-02")
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(each_minute / "predictions.csv", index_col=0, parse_dates=True)
    assert len(table) == 1440 and table.index[0] == pd.Timestamp("2017-06-02")
    np.testing.assert_allclose(table["price"] - table["last_price"], table["flow"], atol=1e-6)
    assert table["predicted_flow"].corr(table["flow"]) > 0.4
    for name in ("flow.png", "price.png"):
        with Image.open(each_minute / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10
    times = chapter.lstm_bitcoin.load_data(learnable)["test_times"]
    (runs,) = chapter.baselines.read_runs([each_minute], times).values()
    np.testing.assert_allclose(runs[0, 1440:], table["predicted_flow"], atol=0.01)
    with pytest.raises(ValueError, match="other minutes"):
        chapter.baselines.read_runs([each_minute], times[1:])
    refuse(GRAPH, [[*usual, "2017-05-30", "2017-05-30"]], tmp_path)  # it was trained on these


# --- baselines --------------------------------------------------------------------------------


def test_compare_weighs_every_minute_alike(chapter):
    """Against the textbook: independent minutes, then days that go together."""
    rng = np.random.default_rng(0)
    theirs = np.ones(30 * 1440)
    ours = 1 + rng.normal(-0.05, 0.5, len(theirs))
    mean, low, high = chapter.baselines.compare(ours, theirs)
    assert mean == pytest.approx(100 * (ours.mean() - 1)) and low < mean < high < 0
    error = 100 * ours.std() / np.sqrt(len(ours))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.35)
    ours = 1 + rng.normal(0, 0.5, 30).repeat(1440)
    mean, low, high = chapter.baselines.compare(ours, theirs)
    error = 100 * ours[::1440].std() / np.sqrt(30)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.35) and low < 0 < high


def test_baselines_on_a_series_with_memory(chapter, learnable):
    """Each change is opposed to the last; smoothing by hand."""
    data = chapter.lstm_bitcoin.load_data(learnable)
    forecasts = chapter.baselines.forecast_baselines(data, [(1, 1, 0), (0, 1, 1)])
    names = ["last value", "drift", "exponential smoothing", "linear regression", "ARIMA(1, 1, 0)"]
    assert list(forecasts) == [*names, "ARIMAX, volume"]
    assert not forecasts["last value"].any() and len(set(forecasts["drift"])) == 1
    by_hand = -0.6 * data["test_X"][:, -1, 0]
    for name in ("linear regression", "ARIMA(1, 1, 0)", "ARIMAX, volume"):
        assert np.corrcoef(forecasts[name], by_hand)[0, 1] > 0.98
    squares = {name: np.mean((x - data["test_y"]) ** 2) for name, x in forecasts.items()}
    assert squares["ARIMA(1, 1, 0)"] < squares["exponential smoothing"] < squares["last value"]


def test_real_prices(lstm, real_data_dir):
    data = lstm.load_data(real_data_dir / "bitcoin.csv")
    assert [len(data[f"{part}_y"]) for part in ("train", "val", "test")] == [
        195_686,
        21_743,
        43_200,
    ]
    assert len(data["prices"]) == 181 * 1440
