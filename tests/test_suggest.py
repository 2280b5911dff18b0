"""The known name nearest to an unknown one."""

import string

from hypothesis import given
from hypothesis import strategies as st

from aepo.suggest import did_you_mean, nearest

NAMES = st.text(string.ascii_letters + "_", min_size=4, max_size=12)


@given(known=st.lists(NAMES, min_size=1, unique_by=str.lower), data=st.data())
def test_a_known_name_in_another_case_is_nearest_to_itself(known, data):
    name = data.draw(st.sampled_from(known))
    assert nearest(name.swapcase(), known) == name


@given(name=NAMES, known=st.lists(NAMES))
def test_what_is_proposed_is_one_of_the_known_names(name, known):
    near = nearest(name, known)
    assert near is None or near in known
    assert did_you_mean(name, known) == ("" if near is None else f"; did you mean {near!r}?")


@given(known=st.lists(NAMES, min_size=1, unique_by=str.lower), data=st.data())
def test_one_letter_too_many_is_forgiven(known, data):
    name = data.draw(st.sampled_from(known))
    assert nearest(name + "x", known) is not None


def test_names_that_are_no_texts_count_too_and_nothing_is_like_an_empty_one():
    assert did_you_mean("100O", [1000, 7]) == "; did you mean '1000'?"
    assert did_you_mean("", ["a", "b"]) == did_you_mean("alpha", []) == ""
    assert did_you_mean("alfa", ["alpha"], mark=",") == ", did you mean 'alpha'?"
