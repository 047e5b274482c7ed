"""Forecasts that a network has to beat, and the scores to compare them by.

Book: chapter 9, "A refresher on time series problems", "ARIMA and ARIMAX forecasting" and
"Measuring performance". `lstm_bitcoin.py` prints them beside the network. To use them elsewhere
copy this file: it needs a price series with one row a minute, and no Keras.

Every forecast is one minute ahead: made with all prices up to the minute before, and none later.
What is fitted is fitted once, on minutes before the test.
"""

import warnings

import numpy as np
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.holtwinters import SimpleExpSmoothing
from statsmodels.tsa.stattools import adfuller

FIT_MINUTES = 14 * 24 * 60  # smoothing and ARIMA are fitted on the last two weeks before the test
# (p, d, q); the best AIC on those two weeks is taken, as R's auto.arima does.
ARIMA_ORDERS = [(1, 1, 0), (0, 1, 1), (1, 1, 1), (2, 1, 2), (5, 1, 0)]
NO_MOVE = 1e-4  # dollars: a forecast this near to 0 has no direction


def forecast_baselines(prices, test_times, exog=None):
    """Changes expected by each baseline in each test minute, in dollars.

    Args:
        prices: Series, one row a minute, from the start of training to the end of the test.
        test_times: the minutes to forecast, at the end of `prices`.
        exog: None, or a DataFrame beside `prices` for ARIMAX. Each row must be known a minute
            ahead: shift columns that are measured during the minute.

    Returns:
        (forecasts, fits): name → array (n,); dict of what was fitted.
    """
    known = prices[: test_times[0]].iloc[:-1]
    drift = (known.iloc[-1] - known.iloc[0]) / (len(known) - 1)
    alpha, smoothed = smooth_exponentially(known, prices[test_times])
    forecasts = {
        "last value": np.zeros(len(test_times)),
        "drift": np.full(len(test_times), drift),
        "exponential smoothing": smoothed,
    }
    fits = {"drift_usd": float(drift), "exponential_smoothing_alpha": alpha}
    order, forecasts["ARIMA"] = forecast_arima(known, prices[test_times])
    fits["arima_order"] = list(order)
    if exog is not None:
        forecasts["ARIMAX"] = forecast_arima(known, prices[test_times], [order], exog)[1]
        fits["arimax_columns"] = list(exog)
    return forecasts, fits


def smooth_exponentially(known, test):
    """Forecasts of the exponentially weighted mean of all prices so far; returns (alpha, changes).

    alpha is the weight of the newest price: at 1 the forecast is the last value.
    """
    recent = known.iloc[-FIT_MINUTES:].to_numpy()
    fitted = SimpleExpSmoothing(recent, initialization_method="heuristic").fit()
    alpha = float(fitted.params["smoothing_level"])
    series = np.concatenate([recent, test])
    levels = SimpleExpSmoothing(series, initialization_method="heuristic").fit(
        smoothing_level=alpha, optimized=False
    )
    start = len(recent)
    return alpha, levels.fittedvalues[start:] - series[start - 1 : -1]


def forecast_arima(known, test, orders=None, exog=None):
    """Fit ARIMA (with `exog` ARIMAX) on the end of `known`, forecast `test` minute by minute.

    The parameters stay; only the newest prices are fed in (`append`), so a month takes a second.

    Returns:
        (order, changes): the order with the best AIC; array (n,) in dollars.
    """
    recent = known.iloc[-FIT_MINUTES:]
    columns = {"known": None, "test": None}
    if exog is not None:
        past = exog.loc[recent.index]
        scaled = (exog - past.mean()) / (past.std() + 1e-12)  # large numbers stall the optimizer
        columns = {"known": scaled.loc[recent.index], "test": scaled.loc[test.index]}
        columns = {part: rows.fillna(0).to_numpy() for part, rows in columns.items()}
    results = []
    for order in orders or ARIMA_ORDERS:
        model = ARIMA(recent.to_numpy(), columns["known"], order=order)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)  # starting values that it mends itself
            results.append((order, model.fit()))
    order, result = min(results, key=lambda pair: pair[1].aic)
    result = result.append(test.to_numpy(), exog=columns["test"])
    expected = result.predict(start=len(recent))
    return order, expected - np.concatenate([recent.iloc[-1:], test.iloc[:-1]])


def score(actual, expected, dollars_per_unit, naive_mae):
    """Scores of expected changes against the actual ones, both in dollars.

    Args:
        dollars_per_unit: dollars in one unit of the scaled series.
        naive_mae: mean absolute error of the last value in training, the M(A)SE's yardstick.

    Returns:
        dict: `rmse_scaled`, `rmse_usd`, `mae_usd`, `mase` (Hyndman and Koehler, 2006) and
        `direction`: the share of right signs with its 95 % Wilson interval, among the
        `direction_count` minutes in which the price moved and a move was forecast; None if none.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    error = expected - actual
    rmse, mae = float(np.sqrt(np.mean(error**2))), float(np.abs(error).mean())
    counted = (actual != 0) & (np.abs(expected) > NO_MOVE)
    count = int(counted.sum())
    right = int((np.sign(actual) == np.sign(expected))[counted].sum())
    low, high = proportion_confint(right, count, method="wilson") if count else (None, None)
    return {
        "rmse_scaled": rmse / dollars_per_unit,
        "rmse_usd": rmse,
        "mae_usd": mae,
        "mase": mae / naive_mae,
        "direction": right / count if count else None,
        "direction_low": None if low is None else float(low),
        "direction_high": None if high is None else float(high),
        "direction_count": count,
    }


def compare_with_last_value(actual, expected):
    """How much smaller the squared error is than the last value's, with a 95 % interval.

    `actual` has a DatetimeIndex. Errors of neighbouring minutes go together (calm and wild hours),
    so the interval is Student's over daily means; it needs two days.

    Returns:
        dict: `gain`, `gain_low`, `gain_high`: shares of the last value's mean squared error;
        `verdict`: "beats", "loses to" or "undecided"; `words`: all of it to print.
    """
    gains = actual**2 - (actual - expected) ** 2  # the last value's error is the change itself
    days = gains.groupby(actual.index.date).mean()
    mse = float((actual**2).mean())
    gain = float(gains.mean()) / mse
    if len(days) < 2:
        return {"gain": gain, "verdict": "undecided", "words": f"{gain:+.2%}; too short to judge"}
    low, high = (float(bound) / mse for bound in DescrStatsW(days).tconfint_mean())
    verdict = "beats" if low > 0 else "loses to" if high < 0 else "undecided"
    words = {"beats": "better", "loses to": "worse", "undecided": "not to be told apart"}[verdict]
    return {
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
        "verdict": verdict,
        "words": f"squared error {-gain:+.2%} (95 % interval {-high:+.2%} to {-low:+.2%}): {words}",
    }


def dickey_fuller(series, lags=60):
    """Statistic and p-value of the augmented Dickey-Fuller test; small p: the series is stationary.

    The number of lags is fixed at an hour: trying them all takes minutes on 200,000 rows.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the result's type will change in 0.16
        statistic, p_value, *_ = adfuller(series, maxlag=lags, autolag=None)
    return float(statistic), float(p_value)


if __name__ == "__main__":
    raise SystemExit("a module: python chapter09/lstm_bitcoin.py uses it")
