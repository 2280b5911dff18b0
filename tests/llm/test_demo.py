"""The demo refuses what it cannot run before anything is trained."""

import pytest
import typer

from aepo.llm import demo


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("abc", "--targets must be numbers with commas between them, got 'abc'"),
        ("1.0,0.5", "--targets must be above 0 and rise, got '1.0,0.5'"),
    ],
)
def test_targets_that_cannot_be_are_refused_with_code_2(targets, message, tmp_path, capsys):
    with pytest.raises(typer.Exit) as ended:
        demo.main(out=tmp_path / "demo", targets=targets)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "demo").exists()
