"""Right answers get 1 in whatever form, wrong ones 0, and nothing that a model writes raises or hangs."""

import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT

from aepo.llm.grading import REASONS, math_reward
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS, extracted_answer, last_boxed
from aepo.llm.grading.too_costly import refusal
from aepo.llm.grading.verdict import RIGHT
from aepo.llm.questions.problems import load_problems

SHARED = ROOT.parent / "shared" / "data" / "math"

# (response's box, reference), each checked by hand. "cheap" needs no algebra.
RIGHT_CHEAP = [
    ("42", "42"),
    ("42.", "42"),
    ("42.0", "42"),
    ("+42", "42"),
    ("042", "42"),
    ("$42$", "42"),
    (r"\$42", "42"),
    (r"\text{42}", "42"),
    ("1,080", "1080"),
    ("1080", "1,080"),
    (r"10,\!080", "10080"),
    ("10{,}080", "10080"),
    ("-3", "-3.00"),
    ("- 3", "-3"),
    (".5", "0.5"),
    ("1/2", "0.5"),
    (r"\frac{1}{2}", "1/2"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", "0.5"),
    (r"-\frac{1}{2}", "-0.5"),
    (r"\frac{-1}{2}", "-1/2"),
    ("2/4", r"\frac{1}{2}"),
    ("-1./3", r"-\frac{1}{3}"),
    ("0.333333", "1/3"),
    (r"\tfrac{2}{3}", "0.6666667"),
    ("4.5e33", r"4.5 \times 10^{33}"),
    (r"4.5 \cdot 10^{33}", "4.5e33"),
    ("1e-5", "0.00001"),
    ("1.50e3", "1500"),
    ("3,5,7", "3, 5, 7"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("Evelyn", r"\text{Evelyn}"),
    ("p-q", "p - q"),
    ("$2n$", "2 n"),
    (r"(-\infty,0)\cup\{1\}", r"$(-\infty, 0) \cup\{1\}$."),
]
RIGHT_ALGEBRA = [
    ("2n-2", "$2(n-1)$"),
    ("x^2+2x+1", "(x+1)^2"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("7,5,3", "3, 5, 7"),
    (r"\{2,1\}", r"\{1,2\}"),
    (r"1-\sqrt{19}, 1+\sqrt{19}", r"1 \pm \sqrt{19}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\sqrt{3}\sqrt{17}", r"\sqrt{51}"),
    ("-5i+6", "6 - 5i"),
    ("[-2,7]", r"x \in [-2,7]"),
    (r"1\frac{4}{5}", r"\frac{9}{5}"),
    ("90", r"90^\circ"),
    (r"5.4 \text{ cents}", "5.4"),
    ("42 apples", "42"),
    (r"2^{10}", "1024"),
    (r"\frac{100!}{2^{50}}", r"\frac{100!}{4^{25}}"),
    (r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1/2 \\ 2 \end{pmatrix}"),
    (r"4.5 \times 10^{33} \text{ erg}", "4.5e33"),
]
WRONG = [
    ("41", "42"),
    ("-42", "42"),
    ("42.5", "42"),
    ("42.0000001", "42"),
    ("1000001", "1000000"),
    ("1,081", "1080"),
    ("10, 80", "1080"),
    ("10, 080", "10080"),
    ("0.33", "1/3"),
    ("1/3", "0.33"),
    ("2/1", "1/2"),
    ("1/0", "1"),
    ("0.0000001", "0.0000002"),
    ("1.3e-27", "2e-27"),
    ("4.5e32", "4.5e33"),
    ("3,5", "3, 5, 7"),
    ("3,5,7,9", "3, 5, 7"),
    ("1,2,3,4,5", "5"),
    (r"5 \text{ or } 6", "5"),
    ("x=5, x=6", "5"),
    ("q-p", "p - q"),
    ("x^2+1", "(x+1)^2"),
    ("(4,3)", "(3,4)"),
    ("[3,4]", "(3,4]"),
    (r"\text{west}", r"\text{east}"),
    (r"1+\sqrt{19}", r"1 \pm \sqrt{19}"),
    (r"\frac{22}{7}", r"\pi"),
    ("6+5i", "6 - 5i"),
    ("x", "5"),
    ("answer", "5"),
    (r"\infty", "5"),
    (r"\frac{5}{0}", "5"),
    ("{" * 3 + "5" + "}" * 3 + r"\frac", "6"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
]


@pytest.mark.parametrize(("box", "answer"), RIGHT_CHEAP)
def test_the_same_number_or_text_is_right_without_algebra(box, answer):
    verdict = math_reward(rf"So the result is \boxed{{{box}}}.", answer)
    assert verdict.reward == 1.0 and verdict.reason in ("exact", "rounded"), verdict


@pytest.mark.parametrize(("box", "answer"), RIGHT_ALGEBRA)
def test_an_equivalent_form_is_right_by_algebra(box, answer):
    verdict = math_reward(rf"So the result is \boxed{{{box}}}.", answer)
    assert verdict.reward == 1.0 and verdict.reason in RIGHT, verdict


@pytest.mark.parametrize(("box", "answer"), WRONG)
def test_another_value_is_wrong(box, answer):
    verdict = math_reward(rf"So the result is \boxed{{{box}}}.", answer)
    assert verdict.reward == 0.0 and verdict.reason.split(":")[0] == "wrong", verdict


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} but \boxed{2", "1"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"} } \boxed {7} {", "7"),
        (r"\fbox{7}", "7"),
        (r"escaped for JSON: \\boxed{\\frac{1}{2}}", r"\\frac{1}{2}"),
        (r"\boxed{3}" + "\n#### 4", "3"),
        ("#### 1,080", "1,080"),
        ("#### 1\n#### 2 \nThe answer is 3", "2"),
        ("The answer is 42.", "42"),
        ("the ANSWER IS: 3.5. So it goes.", "3.5"),
        ("The answer is $\\frac{1}{2}$ metres.", r"\frac{1}{2}"),
        ("The answer is \\(x+1\\), of course", "x+1"),
        ("The answer is\n\n$$\n7\n$$", "7"),
        ("The answer is **12**.", "12"),
        ("The answer is 1. No, the answer is 2", "2"),
    ],
)
def test_the_last_stated_answer_is_extracted(response, extracted):
    assert extracted_answer(response) == extracted


@pytest.mark.parametrize(
    "response",
    [
        "",
        "42",
        "x = 42",
        r"\boxed{}",
        r"\boxed{ }",
        r"\boxed{42",
        r"\boxed 42",
        "#### ",
        "the answer is ",
        "Answer: 42",
    ],
)
def test_a_response_that_states_no_answer_gets_nothing(response):
    verdict = math_reward(response, "42")
    assert (verdict.reward, verdict.extracted, verdict.reason) == (0.0, None, "no answer")


@settings(deadline=None)
@given(
    st.recursive(
        st.text("ab\\ ", max_size=4),
        lambda inner: st.tuples(inner, inner).map(lambda pair: f"{{{pair[0]}}}{pair[1]}"),
    )
)
def test_any_balanced_content_comes_out_of_its_box(content):
    content = content.replace("\\", "\\alpha ")  # no escaped brace: it would not balance
    assert last_boxed(rf"\boxed{{0}} }} {{ \boxed{{{content}}} {{") == content


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_are_right_exactly_when_they_are_equal(given_answer, answer):
    assert math_reward(f"#### {given_answer:,}", str(answer)).reward == float(given_answer == answer)
    assert math_reward(f"#### {answer:,}", str(answer)).reward == 1.0


@settings(deadline=None)
@given(st.fractions(max_denominator=999), st.integers(1, 99))
def test_a_fraction_is_right_in_any_terms(value, factor):
    top, bottom = value.numerator * factor, value.denominator * factor
    assert math_reward(rf"\boxed{{\frac{{{top}}}{{{bottom}}}}}", f"{value}").reason == "exact"
    # However near: only decimals are rounded.
    assert math_reward(rf"\boxed{{{top + 1}/{bottom}}}", f"{value}").reward == 0.0


@settings(deadline=None, max_examples=200)
@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_any_text_is_extracted_and_judged_for_refusal_without_an_error(response, answer):
    extracted_answer(response)
    last_boxed(rf"\boxed{{{response}")
    assert refusal(answer) is None or isinstance(refusal(answer), str)


@settings(deadline=None, max_examples=40)
@given(st.text(r"0123456789xy+-*/^(){}[],.=\!%$ ", max_size=25))
def test_any_formula_gets_a_verdict_with_a_known_reason(formula):
    verdict = math_reward(rf"\boxed{{{formula}}}", r"\sqrt{2}", timeout_seconds=2)
    assert verdict.reason.split(":")[0] in REASONS and verdict.reward == 0.0


REFUSED = {
    "5^5^5^5": "exponent tower",
    "5**5**5**5": "exponent tower",
    "5^{5^{5^{5}}}": "exponent tower",
    r"\frac{5^{5^{5}}}{2}": "exponent tower",
    "9^{9^{9n/n}/n^{0}}^{2^{2}}": "exponent tower",
    "2^{x^{x^{x}}}": "exponent tower",
    "2^{3!}": "exponent tower",
    "(10^9)!": "factorial",
    "99!!": "factorial",
    "1000000!": "factorial",
    "2^{1000000}": "exponent of too many digits",
    "1e-1000000": "exponent of too many digits",
    "7" * (MAX_ANSWER_CHARACTERS + 1): "answer of more than 2,000 characters",
}


@pytest.mark.parametrize("box", REFUSED, ids=lambda box: box[:20])
def test_what_sympy_would_not_come_back_from_is_refused_at_once(box):
    start = time.process_time()
    verdict = math_reward(rf"\boxed{{{box}}}", "5")
    assert (verdict.reward, verdict.reason) == (0.0, f"refused: {REFUSED[box]}")
    assert len(verdict.extracted) <= MAX_ANSWER_CHARACTERS
    assert time.process_time() - start < 5.0


@pytest.mark.parametrize("box", ["2^{1009}", r"e^{-x^{2}}", "2^{2^{n}}", "(n-1)!", "100!", r"(-\sqrt{3}, \sqrt{3})"])
def test_what_answers_really_look_like_is_not_refused(box):
    assert refusal(box) is None


def test_a_refused_form_still_counts_when_it_is_the_reference_itself():
    assert math_reward(r"\boxed{2^{2^{3}}}", "$2^{2^{3}}$").reason == "exact"
    assert math_reward(r"\boxed{256}", "2^{2^{3}}").reason.startswith("error: the reference")


def test_an_answer_cannot_break_out_of_the_box_it_is_parsed_in():
    assert math_reward("#### 12}{13", "12").reason == "refused: unbalanced braces"


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\", "{", "}", "\\boxed{1}", "####", "answer is ", "$", "(^", "9^", " "]
)
def test_a_hundred_thousand_characters_do_not_cost_quadratic_time(piece):
    text = (piece * (100_000 // len(piece) + 1))[:100_000]
    # Processor time, so that a busy machine does not matter: linear work is a fraction of a second, quadratic minutes.
    start = time.process_time()
    for response in (text, rf"\boxed{{{text}}}", f"#### {text}", f"the answer is {text}"):
        math_reward(response, "42")
    assert time.process_time() - start < 10.0


def test_what_takes_too_long_is_a_timeout_within_its_deadline():
    # Without the deadline this product takes hours.
    verdict = math_reward(r"\boxed{\prod_{k=1}^{99999}(k+\sqrt{2})}", "5", timeout_seconds=1)
    assert (verdict.reward, verdict.reason) == (0.0, "timeout")


def test_a_deadline_that_is_swallowed_comes_again(monkeypatch):
    # What a signal handler raises in a destructor is printed and forgotten.
    class Destructor:
        def __del__(self):
            swallowed.append(True)
            while True:
                pass

    def verify(*_, **__):
        for _ in range(2):
            Destructor()
        while True:
            pass

    swallowed = []
    monkeypatch.setattr("math_verify.verify", verify)
    monkeypatch.setattr("sys.unraisablehook", lambda problem: None)
    verdict = math_reward(r"\boxed{\mathbb{R} \setminus \{0\}}", r"\mathbb{R} \setminus \{1\}", timeout_seconds=0.5)
    assert (verdict.reason, swallowed) == ("timeout", [True, True])
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_deadline_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="timeout_seconds must be > 0"):
        math_reward(r"\boxed{1}", "1", timeout_seconds=0)


def judged_in_a_thread(**options):
    outcome = []

    def judge():
        try:
            outcome.append(math_reward(r"\boxed{x^2+2x+1}", "(x+1)^2", **options))
        except RuntimeError as problem:
            outcome.append(problem)

    thread = threading.Thread(target=judge)
    thread.start()
    thread.join()
    return outcome[0]


def test_off_the_main_thread_a_deadline_is_refused_and_none_is_needed():
    assert "main thread" in str(judged_in_a_thread())
    assert judged_in_a_thread(timeout_seconds=None).reason == "algebra"


def test_an_empty_reference_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="reference"):
        math_reward(r"\boxed{1}", " ")


def test_verdicts_and_the_function_cross_a_process_pool():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        verdict = pool.submit(math_reward, r"\boxed{2n-2}", "2(n-1)").result(timeout=60)
    assert verdict == pickle.loads(pickle.dumps(verdict)) and verdict.reason == "algebra"


def test_math_verify_is_only_imported_when_algebra_is_needed():
    script = (
        "import sys; from aepo.llm.grading import math_reward; math_reward('#### 1,080', '1080'); "
        "assert not {'math_verify', 'sympy'} & set(sys.modules); math_reward('#### 2n-2', '2(n-1)'); "
        "assert 'sympy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Every row of the sets with short numbers, every fourth of the others.
PUBLISHED = {
    "gsm8k_train.jsonl": 1,
    "dapo_math_17k.parquet": 4,
    "aime24.jsonl": 1,
    "aime25.jsonl": 1,
    "amc23.jsonl": 1,
    "math500.jsonl": 4,
    "minerva_math.jsonl": 4,
    "olympiadbench.jsonl": 4,
}


def published(name: str, every: int):
    if not (SHARED / name).exists():
        pytest.skip(f"shared/data/math/{name} is not beside this checkout")
    return load_problems(str(SHARED / name))[::every]


@pytest.mark.parametrize(("name", "every"), PUBLISHED.items())
def test_published_references_fed_back_are_right(name, every):
    verdicts = [(p, math_reward(rf"\boxed{{{p.answer}}}", p.answer)) for p in published(name, every)]
    assert [(p.row, p.answer, v.reason) for p, v in verdicts if v.reward != 1.0] == []


@pytest.mark.parametrize(("name", "every"), PUBLISHED.items())
def test_no_published_reference_is_refused(name, every):
    assert [p.answer for p in published(name, every) if refusal(p.answer)] == []


@pytest.mark.parametrize(("name", "every"), PUBLISHED.items())
def test_published_references_are_wrong_for_their_neighbours(name, every):
    problems = published(name, max(every, 37 if name.startswith(("math500", "minerva", "olympiad")) else 1))
    for problem, other in zip(problems, [*problems[1:], problems[0]], strict=True):
        if problem.answer.replace(",", "") != other.answer.replace(",", ""):
            verdict = math_reward(rf"\boxed{{{other.answer}}}", problem.answer)
            assert verdict.reward == 0.0, (problem.answer, other.answer, verdict)
