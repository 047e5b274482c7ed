"""RESULTS.md and the README's table show nothing that no run has measured."""

import check_results
import pytest


def test_tables_agree_with_the_runs():
    assert check_results.check() == []


@pytest.mark.parametrize("figure", ["0.7113", "0.123"])
def test_a_figure_of_no_run_is_found(figure):
    assert check_results.unknown_figures(f"test accuracy {figure}", chapter=7) == [figure]
    assert check_results.unknown_figures("test accuracy 0.710, 0.7102", chapter=7) == []
    assert check_results.unknown_figures("0.9822 ± 0.0007", chapter=5) == []  # three seeds


def test_an_edited_page_is_found(monkeypatch, tmp_path):
    for name in ("RESULTS.md", "README.md"):
        (tmp_path / name).write_text((check_results.ROOT / name).read_text())
    for chapter in check_results.ROOT.glob("chapter*"):
        (tmp_path / chapter.name).symlink_to(chapter)
    monkeypatch.setattr(check_results, "ROOT", tmp_path)
    assert check_results.check() == []
    page = (tmp_path / "RESULTS.md").read_text()
    (tmp_path / "RESULTS.md").write_text(page.replace("0.710", "0.810"))
    assert "not what the runs give" in check_results.check()[0]
