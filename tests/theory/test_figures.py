"""The theory's figures: drawn from the functions, and what their titles say is in them."""

import numpy as np
import pytest

from aepo.theory import delta_entropy
from aepo.theory.figures import FIGURES, falling_states, main


def test_every_figure_is_written(tmp_path, capsys):
    main(["--out", str(tmp_path / "deep")])
    printed = capsys.readouterr().out.split()
    assert [path.rsplit("/", 1)[1] for path in printed] == [f"{name}.png" for name in FIGURES]
    assert all((tmp_path / "deep" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in FIGURES)


def test_the_states_drawn_meet_the_premise_and_have_several_correct_actions():
    z, correct = falling_states(200, np.random.default_rng(3))
    assert z.shape == correct.shape == (200, 6)
    assert (delta_entropy(z, correct) < 0).all() and (correct.sum(-1) > 1).all() and (~correct).any(-1).all()


@pytest.mark.parametrize("name", FIGURES)
def test_no_point_of_the_bounds_is_crossed(name):
    figure = FIGURES[name]()
    if name == "theorem_4_3":
        points = figure.axes[0].collections[0].get_offsets()
        assert len(points) == 4000 and (points[:, 1] >= points[:, 0]).all()
    assert len(figure.axes) == 2 and figure.get_suptitle()
