"""RESULTS.md and the README's table show nothing that no run has measured."""

import json

import check_results
import pytest
from conftest import ROOT, load_script


@pytest.fixture
def run_all(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return load_script("benchmarks/run_all.py")


def test_tables_agree_with_the_runs():
    assert check_results.check() == []
    assert "± 0.000 " not in check_results.make_page()  # the last bit of a float is no scatter


@pytest.mark.parametrize("figure", ["0.7113", "0.123"])
def test_a_figure_of_no_run_is_found(figure):
    assert check_results.unknown_figures(f"test accuracy {figure}", chapter=7) == [figure]
    assert check_results.unknown_figures("test accuracy 0.801, 0.8008", chapter=7) == []
    assert check_results.unknown_figures("0.198 ± 0.004", chapter=2) == []  # three seeds


def test_an_edited_page_is_found(monkeypatch, tmp_path):
    for name in ("RESULTS.md", "README.md"):
        (tmp_path / name).write_text((check_results.ROOT / name).read_text())
    for chapter in check_results.ROOT.glob("chapter*"):
        (tmp_path / chapter.name).symlink_to(chapter)
    monkeypatch.setattr(check_results, "ROOT", tmp_path)
    assert check_results.check() == []
    page = (tmp_path / "RESULTS.md").read_text()
    (tmp_path / "RESULTS.md").write_text(page.replace("0.801", "0.810"))
    assert "not what the runs give" in check_results.check()[0]


def test_benchmark_table_is_that_of_the_last_runs(run_all):
    results = json.loads(run_all.RESULTS.read_text())
    table = run_all.make_table(results)
    assert f"{run_all.MARKS[0]}\n{table}\n{run_all.MARKS[1]}" in run_all.README.read_text()
    assert set(results["rows"]) == {path.stem for path in run_all.FOLDER.glob("bench_*.py")}
    for rows in results["rows"].values():
        for row in rows:
            assert row["what"] in table


def test_ratio_says_how_many_times_better(run_all):
    speeds = {"unit": "images/s", "other": [90, 100, 500], "ours": [150, 200, 210]}
    assert run_all.ratio(speeds) == 2
    assert run_all.ratio({"unit": "s", "other": [8, 6, 4], "ours": [3]}) == 2
    assert run_all.ratio({"unit": "MB", "other": [100], "ours": [200]}) == 0.5


def test_a_benchmark_that_fails_leaves_no_row(run_all, tmp_path):
    broken = tmp_path / "bench_broken.py"
    broken.write_text("import sys; sys.exit('error: no data')")
    assert run_all.run_benchmark(broken, tmp_path / "rows") == ([], "exit code 1, message above")
    broken.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "from common import record\nrecord('chapter 1, x', 's', [2, 4], [1])"
    )
    rows, reason = run_all.run_benchmark(broken, tmp_path / "rows")
    assert not reason
    assert rows[0] | {"other": [2.0, 4.0], "ours": [1.0], "against": "the book's way"} == rows[0]
