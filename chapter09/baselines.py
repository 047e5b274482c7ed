"""Forecasts that a network has to beat, and whether it does.

Book: chapter 9, "A refresher on time series problems" and "ARIMA and ARIMAX forecasting".

    python chapter09/baselines.py                                 # the simple models; two minutes
    python chapter09/baselines.py --run-dirs runs/lstm_bitcoin    # networks beside them

All forecast one minute, from the prices before it; what is fitted is fitted once, before the test.
Runs of networks that differ in their seeds alone are taken together.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from lstm_bitcoin import TEST_DATES, TRAIN_DATES, load_data
from sklearn.linear_model import LinearRegression
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.holtwinters import SimpleExpSmoothing
from statsmodels.tsa.stattools import adfuller

ORDERS = [(1, 1, 0), (0, 1, 1), (1, 1, 1), (2, 1, 2), (5, 1, 0)]  # (p, d, q) of ARIMA
FIT_MINUTES = 14 * 24 * 60  # smoothing and ARIMA learn from the two weeks before the test


def forecast_baselines(data, orders=ORDERS):
    """The changes that each baseline expects in the minutes of test_y: name → (n,), dollars."""
    n, prices = len(data["test_y"]), data["prices"]["Close"].to_numpy()
    recent = prices[-n - FIT_MINUTES :]
    known, last = recent[:-n], recent[-n - 1 : -1]
    smoothing = SimpleExpSmoothing(known, "heuristic").fit()
    weight = smoothing.params["smoothing_level"]  # of the newest price; 1: the last value
    smoothing = SimpleExpSmoothing(recent, "heuristic").fit(weight, optimized=False)
    train, test = (data[part].reshape(len(data[part]), -1) for part in ("train_X", "test_X"))
    order, arima = forecast_arima(recent, n, orders)
    forecasts = {
        "last value": np.zeros(n),
        "drift": np.full(n, np.diff(prices[:-n]).mean()),
        "exponential smoothing": smoothing.fittedvalues[-n:] - last,
        "linear regression": LinearRegression().fit(train, data["train_y"]).predict(test),
        f"ARIMA{order}": arima - last,
    }
    if "Volume" in data["prices"]:  # of the minute before: known in time
        volume = np.log1p(data["prices"]["Volume"]).shift(1, fill_value=0).to_numpy()
        _, arimax = forecast_arima(recent, n, [order], volume[-len(recent) :])
        forecasts["ARIMAX, volume"] = arimax - last
    return forecasts


def forecast_arima(prices, n, orders, column=None):
    """Fitted on all but the last n `prices`: the order of the best AIC; the n prices it expects.

    `column`: for ARIMAX, a value for each of `prices` that is known a minute before it.
    """
    past, future = (None, None) if column is None else (column[:-n], column[-n:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # starting values that it mends itself
        fits = [ARIMA(prices[:-n], past, order=order).fit() for order in orders]
    best = min(fits, key=lambda fit: fit.aic)
    return best.model.order, best.append(prices[-n:], exog=future).predict(start=len(prices) - n)


def compare(ours, theirs):
    """By how many % our squared errors (n,) are above theirs: [mean, 95 % interval's two ends].

    Diebold and Mariano's test (1995). Every minute counts alike; but as those of one day go
    together, the mean is as uncertain as sums over a day are (Newey and West, a day's lags).
    """
    more = 100 * (ours - theirs) / theirs.mean()
    day = min(1440, len(more) // 10 + 1)
    sums = np.convolve(more - more.mean(), np.ones(day))  # of every stretch of a day
    error = np.sqrt((sums**2).sum() / day) / len(more)
    return [more.mean(), more.mean() - 1.96 * error, more.mean() + 1.96 * error]


def read_runs(run_dirs, times):
    """Forecasts of networks, for the minutes `times`: name → a column for each seed."""
    forecasts = {}
    for run_dir in run_dirs:
        settings = json.loads((run_dir / "settings.json").read_text())
        settings.pop("seed")
        table = pd.read_csv(run_dir / "forecasts.csv", index_col=0, parse_dates=True)
        if not table.index.equals(times):
            raise ValueError(f"{run_dir} forecasts other minutes")
        forecasts.setdefault(json.dumps(settings), {})[str(run_dir)] = table["forecast"]
    return {", ".join(runs): np.stack(list(runs.values())) for runs in forecasts.values()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a CSV file of minute prices')
    parser.add_argument("--train-dates", nargs=2, default=TRAIN_DATES, help="2017-01-01 2017-05-31")
    parser.add_argument("--test-dates", nargs=2, default=TEST_DATES, help="2017-06-01 2017-06-30")
    parser.add_argument("--run-dirs", type=Path, nargs="+", default=[], help="of networks")
    parser.add_argument("--output", type=Path, help="a JSON file to write the table to")
    args = parser.parse_args()
    try:
        data = load_data(args.data, args.train_dates, args.test_dates)
        networks = read_runs(args.run_dirs, data["test_times"])
    except Exception as error:  # pandas and json raise a dozen kinds
        source = args.data or "bitcoin (python data/fetch.py bitcoin)"
        sys.exit(f"error: {source}: {' '.join(str(error).split())[:500]}")
    forecasts = forecast_baselines(data) | networks
    actual = data["test_y"].astype("float64")
    known = data["prices"]["Close"].to_numpy()[: -len(actual)]
    errors = {name: np.atleast_2d(x - actual) ** 2 for name, x in forecasts.items()}
    arima = next(name for name in errors if name.startswith("ARIMA("))
    table = {}
    print("RMSE, dollars; squared error above the last value's, above ARIMA's, in %")
    for name, squares in errors.items():
        rmse = np.sqrt(squares.mean(axis=1))  # of each seed
        rows = [compare(squares.mean(axis=0), errors[x][0]) for x in ("last value", arima)]
        table[name] = {"rmse": list(rmse), "above_last_value": rows[0], "above_arima": rows[1]}
        spread = f" ± {rmse.std(ddof=1):.4f}" if len(rmse) > 1 else ""
        print(f"{rmse.mean():.4f}{spread}", end="")
        for mean, low, high in rows:
            print(f"  {mean:+.2f} ({low:+.2f} to {high:+.2f})", end="")
        print(f"  {name}")
    warnings.simplefilter("ignore")  # adfuller's result is going to change
    for name, series in (("price", known), ("change", np.diff(known))):
        statistic, p_value, *_ = adfuller(series, maxlag=60, autolag=None)  # an hour
        print(f"Augmented Dickey-Fuller, {name}: statistic {statistic:.2f}, p = {p_value:.3g}")
        table[f"dickey_fuller_{name}"] = {"statistic": statistic, "p_value": p_value}
    if args.output:
        args.output.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
