"""Chapter 9: RNN and LSTM by hand, other people's prices, the stateful LSTM, fair comparisons."""

import json
import signal

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import load_script, start_python
from contract import refuse, run_to_end
from keras import layers

rnn = load_script("chapter09/rnn_from_scratch.py")
lstm = load_script("chapter09/lstm_bitcoin.py")
stateful = load_script("chapter09/lstm_bitcoin_stateful.py")
STATEFUL, BASELINES = "chapter09/lstm_bitcoin_stateful.py", "chapter09/baselines.py"
GRAPH = "chapter09/predict_and_graph.py"
PARTS = ("train", "val", "test")


def walk(days=5):
    """Made-up prices by the minute; three fifths of a change are taken back a minute later."""
    changes = np.random.default_rng(0).normal(0, 1, days * 1440)
    for i in range(1, len(changes)):
        changes[i] -= 0.6 * changes[i - 1]
    times = pd.date_range("2017-05-29", periods=len(changes), freq="min", name="Time")
    close = (2000 + changes.cumsum()).round(2)
    prices = pd.DataFrame({"Open": close - 0.5, "High": close + 1, "Low": close - 1}, index=times)
    return prices.assign(Close=close, Volume=np.arange(len(close)) % 7 / 2)


@pytest.fixture(scope="module")
def learnable(tmp_path_factory):
    """Three days to train, two to test."""
    path = tmp_path_factory.mktemp("prices") / "learnable.csv"
    walk().to_csv(path)
    return path


def cut_windows(series, lags):
    """All windows (n, lags, 1) and the value after each (n,)."""
    windows = np.lib.stride_tricks.sliding_window_view(series[:-1], lags)
    return windows[:, :, np.newaxis], series[lags:]


def test_cells_and_their_gradients_equal_kerass():
    """Random biases, too: with zeros a mixed-up order of the gates could pass unseen."""
    rng, t = np.random.default_rng(1), 7  # the step for which gradients are compared
    x, v = (rng.normal(size=size).astype("float32") for size in ((5, 12, 3), (5, 8)))
    simple, gated = (layer(8, return_sequences=True) for layer in (layers.SimpleRNN, layers.LSTM))
    for layer in (simple, gated):
        layer.build(x.shape)
        layer.set_weights([rng.normal(0, 0.5, weight.shape) for weight in layer.get_weights()])
    outputs = rnn.rnn_forward(x, *simple.get_weights())
    np.testing.assert_allclose(outputs, simple(x), atol=1e-5)
    hs, steps = rnn.lstm_forward(x, *gated.get_weights())
    np.testing.assert_allclose(hs, gated(x), atol=1e-5)
    _, C, gates = steps[t]
    h, C, o = (tf.Variable(array, dtype="float32") for array in (outputs[:, t], C, gates[3]))
    with tf.GradientTape() as tape:
        ends = simple(x[:, t + 1 :], initial_state=[h])[:, -1]
        ends += gated(x[:, t + 1 :], initial_state=[o * tf.tanh(C), C])[:, -1]
    expected = tape.gradient(ends, [h, C], output_gradients=v)
    W, R = (layer.get_weights()[1] for layer in (simple, gated))
    ours = [rnn.rnn_backward(outputs, W, v)[:, t], rnn.lstm_backward(steps, R, v)[1][:, t]]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_gates_keep_and_the_recurrent_weights_let_grow():
    """An open forget gate keeps half over 99 steps; the whole gradient grows a hundredfold."""
    lengths = rnn.measure_gradients()
    weak, rotation, strong = (lengths[f"simple RNN, weights × {x}"][-1] for x in (0.5, 1, 1.5))
    assert weak < 1e-15 < rotation < 0.01 and strong > 10
    for bias in (0, 1, 5):
        whole = lengths[f"LSTM, forget bias {bias}"]
        alone = lengths[f"LSTM, forget bias {bias}, gates alone"]
        assert (np.diff(alone) <= 0).all() and whole[-1] > 100 * alone[-1]
    assert alone[-1] == pytest.approx((1 + np.exp(-5)) ** -99, rel=0.1) and whole[-1] > 10


def test_files_that_people_have_give_the_same_prices(tmp_path):
    """Kaggle's, Binance's (newest first, some rows twice), Yahoo's; two columns of a kind."""
    prices, path = walk(days=1), tmp_path / "mine.csv"
    seconds, zoned = prices.index.as_unit("s").asi8, prices.index.tz_localize("UTC")
    kaggle = prices.rename(columns={"Volume": "Volume_(BTC)"}).assign(Timestamp=seconds)
    binance = prices.assign(**{"Open time": 1000 * seconds, "Close time": 1000 * seconds + 59_999})
    binance = pd.concat([binance, binance[100:200]]).iloc[::-1]
    yahoo = prices.assign(Datetime=zoned.tz_convert("Europe/London"), **{"Adj Close": 1.0})
    two = prices.rename(columns=str.lower).rename(columns={"volume": "Volume BTC"})
    two = two.assign(**{"unix": 10**6 * seconds, "date": "yesterday", "Volume USD": 1.0})
    for table, separator in ((kaggle, ","), (binance, ","), (yahoo, ","), (two, ";")):
        table.to_csv(path, index=False, sep=separator, encoding="utf-8-sig")
        found = lstm.read_data(path)[list(prices)]
        pd.testing.assert_frame_equal(found, prices, check_freq=False, check_index_type=False)


def test_minutes_without_a_trade_keep_the_last_price(tmp_path):
    prices = walk(days=1)[:8]
    prices.loc[prices.index[[0, 2, 7]]] = np.nan
    prices.drop(prices.index[4:6]).to_csv(tmp_path / "gaps.csv")
    found, close = lstm.read_data(tmp_path / "gaps.csv"), prices["Close"].to_numpy()
    assert list(found.index) == list(prices.index[1:])  # nothing before the first trade
    assert found["Close"].tolist() == close[[1, 1, 3, 3, 3, 6, 6]].tolist()
    assert found["Volume"].tolist() == [0.5, 0, 1.5, 0, 0, 3, 0]
    assert (found["High"] == found["Low"]).tolist() == [False, True, False, True, True, False, True]


def test_windows_are_kerass_and_the_test_looks_back_into_training(learnable):
    """As timeseries_dataset_from_array makes them; no zeros where a day begins."""
    data, prices = lstm.load_data(learnable, inputs=["range", "volume"], lags=7), walk()
    assert [len(data[f"{part}_y"]) for part in PARTS] == [3880, 432, 2880]
    flow = [prices["Close"].diff(), prices["High"] - prices["Low"], np.log1p(prices["Volume"])]
    flow = np.stack(flow, axis=1, dtype="float32")[1:]
    expected = keras.utils.timeseries_dataset_from_array(flow[:-1], flow[7:, 0], 7, batch_size=9999)
    for name, array in zip("Xy", next(iter(expected)), strict=True):
        assert np.array_equal(np.concatenate([data[f"{part}_{name}"] for part in PARTS]), array)
    times = data["test_times"]  # whole days: the book loses all of the last but one minute
    assert [times[0], times[-1]] == [pd.Timestamp("2017-06-01"), pd.Timestamp("2017-06-02 23:59")]


def test_baselines_learn_and_nothing_looks_ahead(tmp_path):
    """Change the prices from now on: neither what now is forecast from nor a forecast moves."""
    prices, now, seen = walk(days=4), pd.Timestamp("2017-06-01 12:01"), []
    for _ in range(2):
        prices.to_csv(tmp_path / "prices.csv")
        data = lstm.load_data(tmp_path / "prices.csv", inputs=["volume", "range"])
        forecasts = load_script(BASELINES).forecast_baselines(data, [(1, 1, 0), (0, 1, 1)])
        known = np.asarray(data["test_times"] <= now)
        everything = forecasts | {"windows": data["test_X"]}
        seen.append({name: values[known] for name, values in everything.items()})
        prices.loc[now:] += 100 * np.random.default_rng(1).random(size=(719, 1))
        prices.loc[now : now + pd.Timedelta(minutes=5)] = np.nan
    before, after = seen
    assert len(before["windows"]) == 722 and len(forecasts) == 6
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert not before["last value"].any() and len(set(before["drift"])) == 1
    by_hand = -0.6 * before["windows"][:, -1, 0]
    for name in ("linear regression", "ARIMA(1, 1, 0)", "ARIMAX, volume"):
        assert np.corrcoef(before[name], by_hand)[0, 1] > 0.98
    assert 0.5 < np.corrcoef(before["exponential smoothing"], by_hand)[0, 1] < 0.98


def test_prices_of_no_use_are_named(tmp_path):
    """Hourly candles once became minutes, nearly all of them "without a trade"."""
    prices, path = walk(), tmp_path / "prices.csv"
    for table, options, words in (
        (prices[:0].rename_axis("version https://git-lfs.github.com"), {}, "Git LFS"),
        (prices[::60], {}, "0 days 01:00:00"),
        (prices.assign(Close=7.0), {}, "never changes"),
        (prices, {"test_dates": ("2017-05-30", "2017-06-02")}, "after them"),
        (prices[["Close"]], {"inputs": ["volume"]}, "no 'Volume' among its columns .*Close"),
    ):
        table.to_csv(path)
        with pytest.raises(ValueError, match=words):
            lstm.load_data(path, **options)


def test_networks_are_the_books(monkeypatch):
    X = np.random.default_rng(0).normal(size=(500, 10, 1)).astype("float32")
    model = stateful.build_network(X, "minmax", 100, True)
    assert model.get_layer("lstm1").stateful and model.input_shape == (100, 10, 1)
    for network in (lstm.build_network(X), model):
        assert network.count_params() == 121_301 and network.loss == "mean_squared_error"
        assert network.get_layer("output").activation.__name__ == "tanh"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")  # it forgets without a word
    with pytest.raises(ValueError, match="TensorFlow only"):
        stateful.build_network(X, "std", batch_size=10)


def test_networks_take_and_give_dollars():
    """The book's scale: the extremes are -1 and 1. The other: five standard deviations are 1."""
    X = np.random.default_rng(0).exponential(3, size=(500, 10, 2)).astype("float32")
    minutes, half = X[:, -1], np.ptp(X[:, -1], axis=0) / 2
    for scale, center, width, answer in (
        ("minmax", minutes.min(axis=0) + half, half, np.tanh(0.5)),
        ("std", minutes.mean(axis=0), 5 * minutes.std(axis=0), 0.5),
    ):
        model = lstm.build_network(X, scale)
        scaled = np.asarray(model.get_layer("scale")(X))[:, -1]
        np.testing.assert_allclose(scaled, (minutes - center) / width, atol=1e-5)
        model.get_layer("output").set_weights([np.zeros((100, 1)), np.array([0.5])])
        np.testing.assert_allclose(model(X[:3]), center[0] + width[0] * answer, rtol=1e-4)


def test_streams_have_no_gap_and_no_overlap():
    series = np.arange(1, 1000, dtype="float32")
    X, y = cut_windows(series, 5)
    windows, targets = stateful.make_streams(X, y, 10)
    assert np.array_equal(targets, windows + 1)  # the change after each minute
    assert np.array_equal(windows[10:, 0], targets[:-10, -1])  # goes on where the row ended
    assert targets.max() == series[-1] and len(np.unique(targets)) == targets.size
    X, y = stateful.make_streams(X, y, 10, book_order=True)
    assert X.shape == (990, 5, 1) and np.array_equal(X[:, -1] + 1, y)


def test_stateful_forecasts_equal_one_long_memory():
    """In streams, or by the twin: what NumPy says that has read every minute before."""
    keras.utils.set_random_seed(1)
    series = np.random.default_rng(0).normal(size=3005).astype("float32")
    X, y = cut_windows(series[:246], 5)
    model, twin = (stateful.build_network(X, "std", batch_size) for batch_size in (4, None))
    twin.set_weights(model.get_weights())
    scale, dollars = model.get_layer("scale"), model.get_layer("dollars")
    *weights, V, c = model.get_weights()

    def remember_all(minutes):
        h = ((minutes - np.ravel(scale.mean)) / np.sqrt(np.ravel(scale.variance)))[None, :, None]
        for layer in (weights[:3], weights[3:]):
            h, _ = rnn.lstm_forward(h, *layer)
        return (h[0] @ V + c)[:, 0] * dollars.scale + dollars.offset

    windows, _ = stateful.make_streams(X, y, 4)
    answers = np.concatenate([model(windows[i : i + 4]) for i in range(0, len(windows), 4)])
    for row in range(4):
        expected = remember_all(windows[row::4].ravel())
        np.testing.assert_allclose(answers[row::4].ravel(), expected, atol=1e-5)
    days = [remember_all(series[start : start + 1444])[4:] for start in (0, 120, 1560)]
    expected = np.concatenate([days[0], days[1][1320:], days[2]])  # two days and a rest before
    forecasts = stateful.forecast(twin, cut_windows(series, 5)[0])
    np.testing.assert_allclose(forecasts, expected, atol=1e-5)


@pytest.fixture(scope="module")
def each_minute(learnable, tmp_path_factory, slow_training):
    """A stateful run, four epochs in streams: its command and its folder."""
    folder = tmp_path_factory.mktemp("each_minute") / "run"
    command = [STATEFUL, "--data", learnable, "--scale", "std", "--batch-size", 10, "--epochs", 4]
    run_to_end(*command, "--run-dir", folder)
    return command, folder


def test_streams_learn_and_what_is_made_of_the_run_is_right(each_minute, learnable, tmp_path):
    """Once the first forecasts of a hundred empty memories were in val_loss."""
    data, baselines, run_dir = lstm.load_data(learnable), load_script(BASELINES), each_minute[1]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test"]["rmse"] < 0.9 * metrics["baselines"]["last_value_rmse"]
    losses = pd.read_csv(run_dir / "history.csv")["val_loss"]
    model = keras.models.load_model(run_dir / "model.keras")
    expected = np.mean((stateful.forecast(model, data["val_X"]) - data["val_y"]) ** 2)
    assert losses[metrics["best_epoch"] - 1] == losses.min() == pytest.approx(expected, rel=1e-4)
    options = ["--data", learnable, "--run-dir", run_dir, "--days"]
    run_to_end(GRAPH, *options, "2017-06-02", "2017-06-02")
    table = pd.read_csv(run_dir / "predictions.csv", index_col=0, parse_dates=True)
    assert len(table) == 1440 and table.index[0] == pd.Timestamp("2017-06-02")
    np.testing.assert_allclose(table["price"] - table["last_price"], table["flow"], atol=1e-6)
    assert table["predicted_flow"].corr(table["flow"]) > 0.4 and (run_dir / "flow.png").exists()
    (runs,) = baselines.read_runs([run_dir], data["test_times"]).values()
    np.testing.assert_allclose(runs[0, 1440:], table["predicted_flow"], atol=0.01)
    with pytest.raises(ValueError, match="other minutes"):
        baselines.read_runs([run_dir], data["test_times"][1:])
    refuse(GRAPH, [[*options, "2017-05-30", "2017-05-30"]], tmp_path)  # it was trained on these


def test_killed_streams_go_on_to_the_very_end_of_an_unbroken_run(each_minute, tmp_path):
    command, unbroken = [*each_minute[0], "--run-dir", tmp_path], each_minute[1]
    assert start_python("tests/killed.py", "last half", *command).wait(300) == -signal.SIGKILL
    assert "Epoch 1/4" not in run_to_end(*command)
    histories = [pd.read_csv(folder / "history.csv") for folder in (tmp_path, unbroken)]
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)


@pytest.mark.slow
def test_book_order_trains_and_other_settings_are_refused(learnable, tmp_path):
    usual = ["--data", learnable, "--run-dir", tmp_path, "--train-dates", *["2017-05-31"] * 2]
    run_to_end(STATEFUL, *usual, "--epochs", 1, "--book-order")
    assert len(pd.read_csv(tmp_path / "forecasts.csv")) == 2880
    refuse(STATEFUL, [usual, [*usual, "--lags", 5, "--evaluate"]], tmp_path)


def test_compare_weighs_every_minute_alike():
    """Against the textbook: independent minutes, then days that go together."""
    rng, theirs = np.random.default_rng(0), np.ones(30 * 1440)
    minutes, days = rng.normal(-0.05, 0.5, len(theirs)), rng.normal(0, 0.5, 30)
    for more, n in ((minutes, len(minutes)), (days.repeat(1440), 30)):
        mean, low, high = load_script(BASELINES).compare(1 + more, theirs)
        assert mean == pytest.approx(100 * more.mean()) and low < mean < high
        assert high - low == pytest.approx(2 * 1.96 * 100 * more.std() / np.sqrt(n), rel=0.35)
