"""Chapter 9: RNN and LSTM by hand, price data without look-ahead, the stateful LSTM, baselines."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script
from PIL import Image

RNN = "chapter09/rnn_from_scratch.py"
LSTM = "chapter09/lstm_bitcoin.py"
GRAPH = "chapter09/predict_and_graph.py"
MINUTE = pd.Timedelta(minutes=1)


@pytest.fixture(scope="module")
def rnn():
    return load_script(RNN)


@pytest.fixture(scope="module")
def chapter():
    """The three scripts, which find each other as if started from the command line."""
    folder = str(ROOT / "chapter09")
    sys.path.insert(0, folder)
    try:
        import baselines
        import lstm_bitcoin
        import predict_and_graph

        yield SimpleNamespace(baselines=baselines, lstm=lstm_bitcoin, graph=predict_and_graph)
    finally:
        sys.path.remove(folder)
        for name in ("baselines", "lstm_bitcoin", "predict_and_graph"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def lstm(chapter):
    return chapter.lstm


def price_walk(days=3, start="2017-05-29", seed=0, memory=0.0):
    """A made-up walk of whole cents by the minute; `memory` is each change's share of the last."""
    rng = np.random.default_rng(seed)
    changes = rng.normal(0, 1, days * 1440)
    for i in range(1, len(changes)):
        changes[i] += memory * changes[i - 1]
    times = pd.date_range(start, periods=len(changes), freq="min", name="Time")
    return pd.DataFrame({"Close": (2000 + changes.cumsum()).round(2), "Volume": 1.0}, index=times)


def write_csv(path, df, columns=("Timestamp", "Close", "Volume_(BTC)")):
    """Write prices as an exchange's file has them: Unix seconds first."""
    table = df.copy()
    table.insert(0, "Timestamp", df.index.as_unit("s").asi8)
    table.columns = columns
    table.to_csv(path, index=False)
    return path


def run_main(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    module.main()


# --- rnn_from_scratch.py ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_cells_equal_kerass(rnn, seed):
    differences = rnn.compare_with_keras(seed)
    assert differences.keys() == {"simple RNN", "LSTM"}
    assert max(differences.values()) < 1e-5


def test_gates_one_by_one(rnn):
    """One unit, all weights 0: the biases alone decide, each gate at its place."""
    bias = np.array([2.0, -1.0, 0.5, 3.0])  # input, forget, candidate, output
    h, C, gates = rnn.lstm_step(
        np.zeros((1, 1)),
        np.zeros((1, 1)),
        np.array([[4.0]]),
        np.zeros((1, 4)),
        np.zeros((1, 4)),
        bias,
    )
    s = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    assert gates["forget"] == pytest.approx(s(-1))
    assert float(C[0, 0]) == pytest.approx(s(-1) * 4 + s(2) * np.tanh(0.5))
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
    for t in (1, 3):
        for unit in range(3):
            nudge = eps * np.eye(3)[unit]

            def rnn_end(h, t=t):
                for later in range(t + 1, 6):
                    h = rnn.rnn_step(x[:, later], h, U, W, b)
                return (h * v).sum()

            slope = (rnn_end(outputs[:, t] + nudge) - rnn_end(outputs[:, t] - nudge)) / (2 * eps)
            assert gradients[0, t, unit] == pytest.approx(slope, abs=1e-6)

            def lstm_end(h, C, t=t):
                for later in range(t + 1, 6):
                    h, C, _ = rnn.lstm_step(x[:, later], h, C, K, R, bias)
                return (h * v).sum()

            h, C, out = hs[:, t], steps[t][1], steps[t][2]["output"]
            slope = (lstm_end(h + nudge, C) - lstm_end(h - nudge, C)) / (2 * eps)
            assert dh[0, t, unit] == pytest.approx(slope, abs=1e-6)
            # A nudge of C moves h of the same step, too.
            ends = [lstm_end(out * np.tanh(C + s * nudge), C + s * nudge) for s in (1, -1)]
            assert dC[0, t, unit] == pytest.approx((ends[0] - ends[1]) / (2 * eps), abs=1e-6)


def test_gradient_vanishes_or_reaches_far(rnn, tmp_path, monkeypatch, capsys):
    run_main(rnn, monkeypatch, "--run-dir", tmp_path / "new")
    assert capsys.readouterr().out.count(": equal") == 2
    Image.open(tmp_path / "new" / "gradient_reach.png").verify()
    weak, rotation, strong, shut, half, open_ = rnn.gradient_reach(steps=60).values()
    assert weak[-1] < 1e-15 and 1e-4 < rotation[-1] < 0.1 and strong[-1] > 1
    assert shut[-1] < 1e-10 < half[-1] < 0.01 and open_[-1] > 0.5
    assert rnn.half_life(open_) is None and rnn.half_life(half) > rnn.half_life(shut)


# --- the data ---------------------------------------------------------------------------------


def test_both_spellings_of_the_columns(lstm, tmp_path):
    kaggle = lstm.read_data("sample")
    assert list(kaggle) == ["Open", "High", "Low", "Close", "Volume"]
    assert kaggle.index[0] == pd.Timestamp("2017-05-20")
    file = write_csv(
        tmp_path / "bitstamp.csv", kaggle, ["timestamp", "open", "high", "low", "close", "volume"]
    )
    pd.testing.assert_frame_equal(lstm.read_data(file), kaggle, check_index_type=False)


def test_the_last_day_is_whole(lstm):
    """The book's comparison keeps 1,440 of these 2,880 minutes, and loses the first one."""
    df = price_walk(days=4, start="2017-05-29")
    rows = lstm.select_dates(df, "2017-05-30", "2017-05-31")
    assert len(rows) == 2880
    assert rows.index[0] == pd.Timestamp("2017-05-30")
    assert rows.index[-1] == pd.Timestamp("2017-05-31 23:59")


def test_gaps_carry_the_last_price_forward(lstm):
    times = pd.date_range("2017-01-01", periods=8, freq="min")
    df = pd.DataFrame(
        {
            "Close": [np.nan, 10, np.nan, 12, 13, 14, 15, np.nan],
            "Volume": [np.nan, 1, np.nan] + [2] * 5,
        },
        index=times,
    ).drop(times[4:6])
    filled, gaps = lstm.fill_gaps(df)
    assert list(filled.index) == list(times[1:])  # nothing before the first trade
    assert list(filled.Close) == [10, 10, 12, 12, 12, 15, 15]
    assert list(filled.Volume) == [1, 0, 2, 0, 0, 2, 2]
    assert gaps == {"filled": 4, "without_price": 2, "without_row": 2, "longest": 2}
    assert list(lstm.diff_data(filled).Close)[1:] == [0, 2, 0, 0, 3, 0]


def test_scaler_learns_from_training_alone(lstm):
    train = pd.Series([-4.0, 0.0, 6.0])
    scaler, scaled = lstm.scale_data(train)
    assert list(scaled) == pytest.approx([-1, -0.2, 1])
    again, test = lstm.scale_data(pd.Series([16.0, 1.0]), scaler)
    assert again is scaler and list(test) == pytest.approx([3, 0])  # the book's refit: 1 and -1
    assert lstm.to_dollars(scaler, [3, 0]) == pytest.approx([16, 1])


def test_lags_are_named_by_how_far_back_they_look(lstm):
    table = lstm.lag_dataframe(pd.Series([10.0, 11, 12, 13, 14]), lags=3)
    assert list(table) == ["lag_3", "lag_2", "lag_1", "y"]
    # The first three minutes have no whole history: dropped, not filled with zeros.
    assert table.to_numpy().tolist() == [[10, 11, 12, 13], [11, 12, 13, 14]]


def test_parts_follow_each_other(lstm):
    df = price_walk(days=4)
    data = lstm.prep_data(
        df, lstm.split_dates(df, ("2017-05-29", "2017-05-31"), ("2017-06-01", "2017-06-01")), lags=5
    )
    assert [len(data[f"{part}_y"]) for part in ("train", "val", "test")] == [3882, 432, 1440]
    assert data["val_times"][0] == data["train_times"][-1] + MINUTE
    assert data["test_times"][0] == data["val_times"][-1] + MINUTE == pd.Timestamp("2017-06-01")
    # June's first window is May's last five minutes.
    flow = df.Close.diff()
    expected = data["scaler"].transform(flow["2017-05-31 23:55":"2017-05-31"].to_frame().to_numpy())
    np.testing.assert_allclose(data["test_X"][0], expected, atol=1e-6)
    train = flow[: data["train_times"][-1]]
    assert lstm.describe_scaler(data["scaler"])["largest"] == train.max()


@pytest.fixture
def short_fits(chapter, monkeypatch):
    """Two orders on a day and a half: the same code, sooner."""
    monkeypatch.setattr(chapter.baselines, "FIT_MINUTES", 2000)
    monkeypatch.setattr(chapter.baselines, "ARIMA_ORDERS", [(1, 1, 0), (0, 1, 1)])


@pytest.mark.slow
def test_no_look_ahead(chapter, short_fits):
    """Change the future: no price, flow, scaled value, window or forecast before it moves."""
    lstm = chapter.lstm
    df = price_walk(days=4)
    df.loc[df.sample(300, random_state=0).index, "Close"] = np.nan
    now = pd.Timestamp("2017-06-01 12:00")
    other = df.copy()
    other.loc[now:, "Close"] = 5000 + 100 * np.random.default_rng(1).normal(size=720)
    other.loc[now : now + 5 * MINUTE, "Close"] = np.nan
    model = lstm.build_network()

    def look(df):
        filled, _ = lstm.fill_gaps(df)
        dates = lstm.split_dates(filled, ("2017-05-29", "2017-05-31"), ("2017-06-01", "2017-06-01"))
        data = lstm.prep_data(filled, dates)
        before = np.asarray(data["test_times"] < now)
        forecasts, _ = chapter.baselines.forecast_baselines(
            filled.Close, data["test_times"], filled[["Close"]].shift(1)
        )
        table = chapter.graph.predict_dates(
            model, data["scaler"], 10, df, "2017-06-01", "2017-06-01"
        )
        return {
            "filled": filled[: now - MINUTE].to_numpy(),
            "train": data["train_X"],
            "windows": data["test_X"][before],
            # the window of the minute `now` itself ends a minute before
            "next window": data["test_X"][~before][0],
            "LSTM": table["predicted_flow"][: now - MINUTE].to_numpy(),
        } | {name: values[before] for name, values in forecasts.items()}

    seen, changed = look(df), look(other)
    assert len(seen["LSTM"]) == 720
    for name in seen:
        np.testing.assert_array_equal(seen[name], changed[name], err_msg=name)


# --- the network ------------------------------------------------------------------------------


def test_network_is_the_books(lstm):
    model = lstm.build_network()
    assert [layer.name for layer in model.layers] == ["input", "lstm1", "lstm2", "output"]
    first, second = model.get_layer("lstm1"), model.get_layer("lstm2")
    assert first.count_params() == 4 * 100 * (1 + 100 + 1) and first.stateful
    assert second.count_params() == 4 * 100 * (100 + 100 + 1)
    assert model.count_params() == 121_301 and model.output_shape == (100, 1)
    assert model.get_layer("output").activation.__name__ == "tanh"
    assert lstm.build_network(stateful=False).input_shape == (None, 10, 1)


@pytest.mark.parametrize(("count", "batch", "lags"), [(120, 12, 3), (50, 20, 10), (7, 20, 5)])
def test_streams_have_no_gap_and_no_overlap(lstm, count, batch, lags):
    order = lstm.stream_order(count, batch, lags)
    assert sorted(order) == list(range(len(order))) and len(order) - count < batch
    batches = order.reshape(-1, batch)
    assert (np.diff(batches, axis=0) == lags).all()  # each row goes on where it stopped
    if batch == lags:
        assert (np.diff(order) == 1).all()


def test_stateful_forecasts_equal_one_long_memory(lstm, rnn):
    """Windows with the state carried on = all minutes read in one go; the book's order is not."""
    import keras

    keras.utils.set_random_seed(1)
    lags, count = 5, 60
    model = lstm.build_network(lags, batch_size=20, units=8)
    series = np.random.default_rng(0).normal(size=count + lags).astype("float32")
    X = np.stack([series[i : i + lags] for i in range(count)])[:, :, np.newaxis]
    *layers, V, c = model.get_weights()

    def remember_all(window, first):
        """The forecast after `window`, by NumPy, having read every minute since window `first`."""
        start = first + (window - first) % lags
        h, _ = rnn.lstm_forward(series[np.newaxis, start : window + lags, np.newaxis], *layers[:3])
        h, _ = rnn.lstm_forward(h, *layers[3:])
        return np.tanh(h[0, -1] @ V + c)[0]

    expected = lstm.predict(model, X)
    np.testing.assert_allclose(expected, [remember_all(i, 0) for i in range(count)], atol=1e-5)
    np.testing.assert_array_equal(expected, lstm.predict(model, X))  # nothing was left over
    # Side by side in four blocks: each from an empty memory.
    blocks = lstm.predict(model, X, batch_size=20)
    np.testing.assert_allclose(
        blocks, [remember_all(i, i // 15 * 15) for i in range(count)], atol=1e-5
    )
    plain = model.predict(X, batch_size=20, verbose=0)[:, 0]  # the book's layout
    assert abs(plain[20:] - expected[20:]).max() > 1e-3


def test_a_forecast_after_each_minute(lstm):
    """--each-minute: every window's targets are its own minutes one later, without a gap."""
    series = np.arange(1, 1000, dtype="float32")
    X = np.stack([series[i : i + 5] for i in range(994)])[:, :, np.newaxis]
    windows, targets = lstm.arrange(X, series[5:], 10, each_minute=True)
    assert windows.shape == targets.shape == (190, 5, 1)
    np.testing.assert_array_equal(targets[:, :-1], windows[:, 1:])
    np.testing.assert_array_equal(targets[:, -1], windows[:, -1] + 1)
    np.testing.assert_array_equal(windows[10:, 0], targets[:-10, -1])
    assert targets.max() == series[-1] and len(np.unique(targets)) == targets.size
    model = lstm.build_network(5, 10, units=4, each_minute=True)
    assert model.output_shape == (10, 5, 1)
    lstm.build_network(5, 5, units=4).set_weights(model.get_weights())  # what `predict` does


def test_memory_is_empty_at_each_start(lstm, tmp_path):
    """Two epochs and their validation begin with zeros, and validation leaves nothing behind."""
    import keras

    model = lstm.build_network(5, batch_size=10, units=4)
    seen = []

    class Look(keras.callbacks.Callback):
        def look(self, *args):
            seen.append(sum(float(abs(np.array(s)).sum()) for s in model.get_layer("lstm1").states))

        on_epoch_begin = on_test_begin = on_test_end = look

    X = np.random.default_rng(0).normal(size=(40, 5, 1)).astype("float32")
    model.fit(
        X, X[:, -1], batch_size=10, epochs=2, shuffle=False, verbose=0,
        validation_data=(X, X[:, -1]), validation_batch_size=10,
        callbacks=[lstm.create_callbacks(tmp_path)[0], Look()],
    )  # fmt: skip
    assert seen[0] == seen[1] == seen[3] == seen[4] == 0 and seen[2] > 0 and seen[5] > 0


# --- baselines and scores ---------------------------------------------------------------------


def test_scores(chapter):
    row = chapter.baselines.score(
        [1.0, -2.0, 0.0, 3.0], [2.0, 1.0, 1.0, 0.0], dollars_per_unit=5, naive_mae=2
    )
    assert row["rmse_usd"] == pytest.approx(np.sqrt((1 + 9 + 1 + 9) / 4))
    assert row["rmse_scaled"] == pytest.approx(row["rmse_usd"] / 5)
    assert row["mase"] == pytest.approx((1 + 3 + 1 + 3) / 4 / 2)
    # No move happened in minute 3, none was forecast in minute 4.
    assert row["direction"] == 0.5 and row["direction_count"] == 2
    row = chapter.baselines.score(np.ones(100), np.r_[np.ones(80), -np.ones(20)], 1, 1)
    assert (row["direction_low"], row["direction_high"]) == pytest.approx(
        (0.7112, 0.8666), abs=1e-4
    )
    assert chapter.baselines.score([1.0], [0.0], 1, 1)["direction"] is None


def test_verdict(chapter):
    rng = np.random.default_rng(0)
    times = pd.date_range("2017-06-01", periods=10 * 1440, freq="min")
    known = rng.normal(size=len(times))
    actual = pd.Series(known + rng.normal(size=len(times)), index=times)
    for forecast, verdict in (
        (known, "beats"),
        (-known, "loses to"),
        (0.01 * rng.normal(size=len(times)), "undecided"),
    ):
        result = chapter.baselines.compare_with_last_value(actual, forecast)
        assert result["verdict"] == verdict
        assert result["gain_low"] < result["gain"] < result["gain_high"]
    result = chapter.baselines.compare_with_last_value(actual, known)
    assert result["gain"] == pytest.approx(0.5, abs=0.03) and "better" in result["words"]
    assert "too short" in chapter.baselines.compare_with_last_value(actual[:9], known[:9])["words"]


def test_baselines_on_a_series_with_memory(chapter, short_fits):
    """ARIMA finds that each change is opposed to the last; ARIMAX finds the outside cause."""
    df = price_walk(days=4, memory=-0.4)
    cause = pd.Series(np.random.default_rng(5).normal(size=len(df)), index=df.index)
    prices = df.Close + 2 * cause.cumsum()
    flow, times = prices.diff(), df.index[3 * 1440 :]
    forecasts, fits = chapter.baselines.forecast_baselines(
        prices, times, cause.cumsum().to_frame("cause")
    )
    assert list(forecasts) == [
        "last value", "drift", "exponential smoothing", "ARIMA", "ARIMAX",
    ]  # fmt: skip
    assert not forecasts["last value"].any()
    known = prices[: times[0]].iloc[:-1]
    assert forecasts["drift"] == pytest.approx(known.diff().mean())
    rmse = {
        name: np.sqrt(((flow[times] - values) ** 2).mean()) for name, values in forecasts.items()
    }
    assert rmse["ARIMAX"] < 0.6 * rmse["last value"]
    assert fits["arimax_columns"] == ["cause"]

    forecasts, fits = chapter.baselines.forecast_baselines(df.Close, times)
    flow = df.Close.diff()
    # AR(1) by hand: the last change, turned round.
    by_hand = -0.4 * flow.shift(1)[times]
    assert np.corrcoef(forecasts["ARIMA"], by_hand)[0, 1] > 0.95
    rmse = {
        name: np.sqrt(((flow[times] - values) ** 2).mean()) for name, values in forecasts.items()
    }
    assert rmse["ARIMA"] < rmse["exponential smoothing"] < rmse["last value"]
    # Exponential smoothing by hand.
    alpha, recent = fits["exponential_smoothing_alpha"], df.Close[times[0] :]
    assert 0.4 < alpha < 0.9
    level = recent.iloc[0]
    for price in recent.iloc[1:-1]:
        level = alpha * price + (1 - alpha) * level
    assert forecasts["exponential smoothing"][-1] == pytest.approx(
        level - recent.iloc[-2], abs=1e-6
    )


def test_dickey_fuller(chapter):
    prices = price_walk(days=3).Close
    statistic, p_value = chapter.baselines.dickey_fuller(prices)
    assert statistic > -2.9 and p_value > 0.05
    statistic, p_value = chapter.baselines.dickey_fuller(prices.diff().dropna())
    assert statistic < -5 and p_value < 1e-6


# --- bad input --------------------------------------------------------------------------------

WALK = price_walk(days=4)


def changed(**cells):
    """The walk as text with some cells replaced: column=(row, value)."""
    table = WALK.copy()
    table.insert(0, "Timestamp", WALK.index.as_unit("s").asi8)
    table = table.astype(object)
    for column, (row, value) in cells.items():
        table.iloc[row, list(table).index(column)] = value
    return table.to_csv(index=False)


def swapped():
    lines = changed().splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    return "\n".join(lines)


TRAIN = ("--train-dates", "2017-05-29", "2017-05-31")
TEST = ("--test-dates", "2017-06-01", "2017-06-01")
BACKWARDS = (
    "--train-dates",
    "2017-05-31",
    "2017-06-01",
    "--test-dates",
    "2017-05-30",
    "2017-06-01",
)
STAMP_7 = WALK.index[6].value // 10**9
ALL_NAN = "Timestamp,Close\n1496016000,\n1496016060,NaN\n"
BAD_INPUT = {
    "unsorted": (swapped, (), "row 6 below the header, column Timestamp"),
    "duplicated": (lambda: changed(Timestamp=(7, STAMP_7)), (), "row 8 below the header"),
    "text price": (lambda: changed(Close=(3, "N/A$")), (), "row 4 below the header, column Close"),
    "infinite price": (lambda: changed(Close=(3, "inf")), (), "is not a number"),
    "price of 0": (lambda: changed(Close=(3, 0)), (), "not a price above 0"),
    "text time": (lambda: changed(Timestamp=(3, "2017-05-29 00:03")), (), "column Timestamp"),
    "milliseconds": (lambda: changed(Timestamp=(0, 1496016000000)), (), "milliseconds"),
    "seconds": (lambda: changed(Timestamp=(0, 1496015970)), (), "not a whole minute"),
    "no time": (lambda: changed(Timestamp=(2, "")), (), "is no time"),
    "all NaN": (lambda: ALL_NAN, (), "empty in every row"),
    "NaN where asked": (lambda: ALL_NAN + "1600000020,5\n", (), "no price at all"),
    "missing column": (lambda: changed().replace("Close", "Last"), (), "column missing: Close"),
    "two columns alike": (lambda: "Timestamp,Close,close\n0,1,2\n", (), "two columns for Close"),
    "longer rows": (lambda: "Timestamp,Close\n0,1,2\n60,1,2\n", (), "more cells than"),
    "header only": (lambda: "Timestamp,Close\n", (), "no prices below it"),
    "empty file": (lambda: "", (), "not a readable CSV"),
    "not text": (lambda: b"\xff\xfe\x00\x81", (), "not a readable CSV"),
    "empty range": (changed, ("--test-dates", "2018-01-01", "2018-01-31"), "no prices from 2018"),
    "turned round": (changed, ("--test-dates", "2017-06-01", "2017-05-28"), "no prices from"),
    "no date": (changed, ("--train-dates", "May", "yesterday"), "not a range of dates"),
    "test first": (changed, BACKWARDS, "before the training range ends"),
    "too few rows": (lambda: "\n".join(changed().splitlines()[:300]), (), "from 2017-06-01 to"),
    "too few for lags": (
        lambda: "\n".join(changed().splitlines()[: 3 * 1440 + 51]),
        (),
        "50 minutes with 10 before them are too few for the test set",
    ),
    "no such exogenous column": (changed, ("--exog", "High"), "--exog High"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused(lstm, tmp_path, monkeypatch, capsys, case):
    """Status 2, one message that names the trouble, and nothing written."""
    make, arguments, words = BAD_INPUT[case]
    content = make()
    file, run_dir = tmp_path / "prices.csv", tmp_path / "run"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SystemExit) as stop:
        run_main(lstm, monkeypatch, "--data", file, *TRAIN, *TEST, *arguments, "--run-dir", run_dir)
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0], errors
    assert not run_dir.exists()


@pytest.mark.parametrize("source", ["nowhere.csv", "."])
def test_missing_file(lstm, tmp_path, monkeypatch, capsys, source):
    with pytest.raises(SystemExit) as stop:
        run_main(lstm, monkeypatch, "--data", tmp_path / source, "--run-dir", tmp_path / "run")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "--data sample" in error and "data/fetch.py bitcoin" in error


@pytest.mark.parametrize(
    "arguments", [["--epochs", "0"], ["--batch-size", "64"], ["--lags", "7"], ["--exog", "Bid"]]
)
def test_bad_arguments(lstm, monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run_main(lstm, monkeypatch, *arguments)
    assert stop.value.code == 2 and arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("files", [{}, {"model.keras": b"PK damaged"}])
def test_graph_without_a_usable_run(chapter, tmp_path, monkeypatch, capsys, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        run_main(chapter.graph, monkeypatch, "--data", "sample", "--run-dir", tmp_path)
    assert stop.value.code == 2 and "train" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_graph_range_without_history(chapter):
    lstm = chapter.lstm
    scaler, _ = lstm.scale_data(pd.Series([-1.0, 1.0]))
    model = lstm.build_network()
    with pytest.raises(ValueError, match="11 minutes of prices before"):
        chapter.graph.predict_dates(model, scaler, 10, WALK[:8], "2017-05-29", "2017-05-29")
    table = chapter.graph.predict_dates(model, scaler, 10, WALK, "2017-05-30", "2017-05-30")
    assert len(table) == 1440 and table.index[0] == pd.Timestamp("2017-05-30")
    np.testing.assert_allclose(table["price"] - table["last_price"], table["flow"], atol=1e-9)
    np.testing.assert_allclose(
        table["last_price"] + table["predicted_flow"], table["predicted_price"]
    )


# --- whole runs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnable(tmp_path_factory):
    """Five days in which three fifths of every change are taken back a minute later."""
    path = tmp_path_factory.mktemp("prices") / "memory.csv"
    return write_csv(path, price_walk(days=5, memory=-0.6, start="2017-05-29"))


LEARNABLE = (
    "--train-dates",
    "2017-05-29",
    "2017-05-31",
    "--test-dates",
    "2017-06-01",
    "2017-06-03",
)


@pytest.mark.slow
def test_learns_saves_and_predicts_in_a_fresh_process(
    chapter, learnable, short_fits, tmp_path, monkeypatch, capsys, run_script
):
    """Where there is something to learn, the network beats the last value; then the graphs."""
    run_dir = tmp_path / "run"
    arguments = ("--data", learnable, *LEARNABLE, "--run-dir", run_dir)
    arguments += ("--lags", 5, "--batch-size", 50)
    run_main(chapter.lstm, monkeypatch, *arguments, "--epochs", 4)
    printed = capsys.readouterr().out
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["verdict"]["verdict"] == "beats" and metrics["verdict"]["gain"] > 0.1
    assert metrics["stateful"] and metrics["parameters"] == 121_301 and metrics["epochs"] == 4
    assert metrics["test"]["direction_low"] > 0.55
    assert metrics["test"]["rmse_usd"] < metrics["baselines"]["last_value_rmse_usd"]
    assert metrics["baselines"]["last_value_direction"] is None
    assert metrics["adf"]["price_p_value"] > 0.05 > metrics["adf"]["flow_p_value"]
    assert "LSTM against the last value" in printed and "better" in printed
    assert not (run_dir / "backup").exists()
    Image.open(run_dir / "learning_curves.png").verify()
    assert len(pd.read_csv(run_dir / "history.csv")) == 4

    result = run_script(
        GRAPH, "--data", learnable, "--run-dir", run_dir, "--output", tmp_path / "out",
        "--start", "2017-06-01", "--end", "2017-06-02", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"RMSE of the network {metrics['test']['rmse_usd']:.4f}" in result.stdout
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", index_col="Time", parse_dates=True)
    assert len(table) == 2 * 1440
    assert table.predicted_flow.corr(table.flow) > 0.4
    for name in ("flow.png", "price.png"):
        Image.open(tmp_path / "out" / name).verify()


def test_bad_input_as_a_user_sees_it(run_script, tmp_path):
    (tmp_path / "prices.csv").write_text(swapped())
    result = run_script(LSTM, "--data", "prices.csv", *TRAIN, *TEST, cwd=tmp_path)
    assert_clear_error(result, "prices.csv", "row 6", "sort the file")
    assert not (tmp_path / "runs").exists()


def test_stateful_on_jax_is_refused(lstm, monkeypatch, capsys, tmp_path):
    """Keras 3.15 forgets there between batches without a word."""
    monkeypatch.setattr(lstm.keras.backend, "backend", lambda: "jax")
    with pytest.raises(SystemExit) as stop:
        run_main(lstm, monkeypatch, "--data", "sample", "--run-dir", tmp_path / "run")
    assert stop.value.code == 2 and "give --stateless" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_stateless_on_jax(run_script, learnable, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    result = run_script(
        LSTM, "--data", learnable, *LEARNABLE, "--stateless", "--epochs", 8, "--run-dir", tmp_path,
        env={"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax" and not metrics["stateful"]
    assert metrics["verdict"]["gain"] > 0.1


@pytest.mark.slow
def test_only_carried_state_knows_what_is_beyond_the_window(lstm):
    """Each value repeats that of 8 minutes before, a window holds 4: it takes a memory."""
    import keras

    rng = np.random.default_rng(0)
    series = np.empty(8004, "float32")
    for start in range(0, len(series), 8):  # fresh values for 4 minutes, the same for the next 4
        fresh = rng.choice([-0.5, 0.5], 4)
        series[start : start + 8] = np.r_[fresh, fresh][: len(series) - start]
    X = np.stack([series[i : i + 4] for i in range(8000)])[:, :, np.newaxis]
    y = series[4:8004]
    # Which half a minute is in cannot be seen in four minutes alone.
    losses = {}
    for way in ("streams", "stateless", "book order"):
        keras.utils.set_random_seed(1)
        model = lstm.build_network(4, batch_size=40, stateful=way != "stateless", units=16)
        model.optimizer.learning_rate = 0.01
        pair = lstm.arrange(X, y, 40) if way == "streams" else (X, y)
        losses[way] = model.fit(
            *pair, batch_size=40, epochs=12, shuffle=way != "streams", verbose=0,
            callbacks=[lstm.ResetStates()] if way == "streams" else [],
        ).history["loss"][-1]  # fmt: skip
    print(losses)
    assert losses["streams"] < 0.8 * min(losses["stateless"], losses["book order"]), losses


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--each-minute", "--book-order", "--stateless"])
def test_other_ways_of_training_learn_too(
    chapter, learnable, short_fits, tmp_path, monkeypatch, capsys, way
):
    """And --evaluate says the same in the end, but refuses other data."""
    arguments = ("--data", learnable, *LEARNABLE, "--run-dir", tmp_path, "--lags", 5, way)
    epochs, batch = (6, 20) if way == "--each-minute" else (4, 50)
    run_main(chapter.lstm, monkeypatch, *arguments, "--epochs", epochs, "--batch-size", batch)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["verdict"]["gain"] > 0.1
    assert metrics["stateful"] == (way != "--stateless")
    assert metrics["each_minute"] == (way == "--each-minute")

    if way != "--each-minute":  # once is enough
        return
    before = (tmp_path / "metrics.json").read_text()
    run_main(chapter.lstm, monkeypatch, *arguments, "--batch-size", batch, "--evaluate")
    assert f"{metrics['test']['rmse_usd']:.4f}" in capsys.readouterr().out
    assert (tmp_path / "metrics.json").read_text() == before
    with pytest.raises(SystemExit) as stop:
        run_main(chapter.lstm, monkeypatch, "--data", "sample", "--run-dir", tmp_path, "--evaluate")
    assert stop.value.code == 2 and "other prices" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in mid-training on the sample; the same command goes on from the last epoch."""
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--epochs", "3", "--run-dir", str(run_dir))
    done = kill_in_training(LSTM, arguments, run_dir / "backup", after_epoch=1)

    result = run_script(LSTM, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}" in result.stdout and f"Epoch {done}/3" not in result.stdout
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    assert list(history["epoch"]) == [0, 1, 2]
    assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None and "stand-in" in metrics["data"]
    assert metrics["gaps"] == {
        "filled": 679, "without_price": 610, "without_row": 69, "longest": 26,
    }  # fmt: skip


def test_real_prices(lstm, real_data_dir):
    """Shape of the real months: every minute there once, what was missing counted."""
    df = lstm.read_data(real_data_dir / "bitcoin.csv")
    assert len(df) == 240_763
    filled, gaps = lstm.fill_gaps(lstm.select_dates(df, "2017-01-01", "2017-06-30"))
    assert len(filled) == 181 * 1440 and gaps["without_row"] == gaps["filled"] == 19_877
    data = lstm.prep_data(filled, lstm.split_dates(filled))
    assert len(data["test_y"]) == 30 * 1440 and len(data["train_y"]) + len(data["val_y"]) == 217_429
    assert lstm.describe_scaler(data["scaler"])["smallest"] == -232
