"""The registry: names, options, the paper's defaults, and helpful refusals."""

import pytest
from hypothesis import given
from strategies import option_values, recipes

from aepo import zoo
from aepo.controller import BangBang, FixedTemperature
from aepo.loss import ClippedSurrogate, ScoreFunction
from aepo.method import Method, by_advantage, by_reward, every_row, reward_credit
from aepo.weights import sequence_mean, token_mean

everyone = pytest.mark.parametrize("name", sorted(zoo.METHODS))


@everyone
def test_every_method_builds_from_its_defaults_and_knows_its_name(name):
    method = zoo.build(name)
    assert isinstance(method, Method) and method.name == name
    assert zoo.build(name, **zoo.options(name)).label == method.label


@given(recipes())
def test_every_option_of_every_method_has_a_generator_and_builds(recipe):
    name, options = recipe
    assert zoo.build(name, **options).name == name


@everyone
def test_every_option_is_drawn_by_the_tests_starting_with_its_default(name):
    for option, default in zoo.options(name).items():
        values = option_values(name, option)
        assert values[0] == default
        assert len(values) > 1, f"add values of {option!r} to strategies.OPTIONS"


def test_the_defaults_are_the_papers_values():
    for name in ("grpo", "aepo", "aepo_eq2", "aepo_eq3", "entropy_reg", "entropy_reg_nll", "entropy_adv"):
        # Table 4: clip range 0.2, low = high; the paper has no dual clip; Eq. 1 divides by |o| per response.
        assert zoo.build(name).surrogate == ClippedSurrogate(clip_low=0.2, clip_high=0.2, dual_clip=None)
        assert zoo.build(name).reduction is sequence_mean
        assert zoo.options(name)["std"] == "sample"
    for name in ("aepo", "aepo_eq3"):
        assert zoo.build(name).controller == BangBang(t_low=0.8, t_high=1.2)
    assert zoo.build("entropy_reg").entropy_coef == zoo.build("entropy_reg_nll").entropy_coef == 0.015
    options = zoo.options("entropy_adv")
    assert (options["beta"], options["kappa"]) == (0.4, 2.0)


def test_what_tells_the_three_equations_apart():
    eq1, eq2, eq3 = (zoo.build(name) for name in ("aepo", "aepo_eq2", "aepo_eq3"))
    assert eq1.tempered.keep is eq2.tempered.keep is by_reward
    assert eq1.tempered.credit is eq2.tempered.credit is reward_credit
    assert eq2.controller == FixedTemperature(temperature=1.0)
    assert eq3.tempered.keep is every_row and eq3.tempered.credit is eq3.advantage
    assert eq1.tempered.normalizer == eq2.tempered.normalizer == eq3.tempered.normalizer == "all"


def test_what_the_other_methods_are_made_of():
    assert zoo.build("aepo", select="advantage").tempered.keep is by_advantage
    reinforce, tempered = zoo.build("reinforce"), zoo.build("reinforce_tempered")
    assert reinforce.surrogate == tempered.surrogate == ScoreFunction()
    assert reinforce.advantage is reward_credit and tempered.advantage is None
    assert tempered.controller == FixedTemperature(temperature=1.2)
    assert zoo.build("entropy_reg").entropy_bonus == "exact"
    assert zoo.build("entropy_reg_nll").entropy_bonus == "sampled_nll"
    for name in zoo.METHODS:
        if "average" in zoo.options(name):
            assert zoo.build(name, average="token").reduction is token_mean


def test_the_label_names_the_normalizer_and_the_strength():
    assert zoo.build("aepo", alpha=4.0).label == "normalizer=all, alpha=4"
    assert zoo.build("aepo", normalizer="replace").label == "normalizer=replace, 60 up/30 down"
    assert zoo.build("aepo", normalizer="replace", cap_up=6).label == "normalizer=replace, 6 up/30 down"


def test_options_include_those_passed_on_to_grpo():
    assert set(zoo.options("grpo")) < set(zoo.options("entropy_reg"))
    assert zoo.build("aepo", clip_high=0.28).surrogate.clip_high == 0.28
    assert zoo.build("entropy_reg", dual_clip=3.0).surrogate.dual_clip == 3.0


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        ("aepoo", {}, "unknown method 'aepoo', did you mean 'aepo'"),
        ("entropy-reg", {}, "did you mean 'entropy_reg'"),
        ("ppo", {}, "unknown method 'ppo'"),
        ("aepo", {"aplha": 2}, "unknown option of method 'aepo': 'aplha', did you mean 'alpha'"),
        ("grpo", {"clip_hihg": 1, "meanz": 2}, "'clip_high'.*; unknown option of method 'grpo': 'meanz'"),
        ("aepo", {"select": "best"}, "select must be 'reward' or 'advantage', got 'best'"),
        ("grpo", {"average": "prompt"}, "average must be 'sequence' or 'token', got 'prompt'"),
        ("aepo", {"cap_up": 0, "normalizer": "replace"}, "cap_up must be at least 1 or None, got 0"),
        ("aepo", {"t_low": 1.4}, r"t_low must not exceed t_high, got t_low=1\.4, t_high=1\.2"),
        ("entropy_reg", {"coef_schedule": "sinusoid"}, "coef_schedule must be one of constant, linear, cosine, step"),
        ("entropy_reg_nll", {"coef_steps": 0}, "coef_steps must be > 0, got 0"),
        ("e3", {"vocabulary": 1}, "vocabulary must be at least 2, got 1"),
        ("repo_r", {"start": 2.0}, r"start must be in \[-limit, limit\], limit=1\.0, got 2\.0"),
        ("stare", {"variant": "O2"}, "variant must be 'O1' or 'C2', got 'O2'"),
        ("stare", {"variant": "C2", "high": 1.5}, r"high must be at most 1 with variant='C2'.*got 1\.5"),
        ("stare", {"strength": 0.6}, r"strength must be in \(0, high=0\.5\], got 0\.6"),
        ("stare", {"share": 0.0}, r"share must be in \(0, 1\], got 0\.0"),
        ("clip_b", {"mu": -1.0}, r"mu must be >= 0, got -1\.0"),
        ("clip_v", {"share": 0.0}, r"share must be in \(0, 1\], got 0\.0"),
        ("entropy_adv", {"beta": 0.0}, r"beta must be > 0, got 0\.0"),
        ("entropy_adv", {"kappa": 1.0}, r"kappa must be > 1, got 1\.0"),
        ("reinforce_tempered", {"temperature": 0.0}, r"temperature must be > 0, got 0\.0"),
    ],
)
def test_a_wrong_name_option_or_value_is_refused_with_a_hint(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(name, **overrides)


def test_an_unknown_method_lists_all_known_ones():
    with pytest.raises(ValueError) as error:
        zoo.options("nothing")
    assert str(error.value).endswith("Known: " + ", ".join(sorted(zoo.METHODS)))
