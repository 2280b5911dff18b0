"""Answers that users of such trainers reported as misjudged, and their relatives, in training and in evaluation."""

import pytest

from aepo.llm.grading import math_reward
from aepo.llm.grading.benchmark_check import check
from aepo.llm.grading.reference import Reference
from aepo.llm.grading.written import written

# By the kind of fault: (answer, reference). What has a box or says "answer is" is a whole response.
WRONG = {
    "what a parser drops": [
        (r"3\text{ apples, }4\text{ pears}", r"3\text{ apples, }5\text{ pears}"),
        (r"4\text{ apples, }3\text{ pears}", r"3\text{ apples, }4\text{ pears}"),
        (r"4, 3", r"3\text{ apples, }4\text{ pears}"),
        (r"5\text{ ft }6\text{ in}", r"5\text{ ft }7\text{ in}"),
        (r"3\text{ cm}\times4\text{ cm}", r"3\text{ cm}\times5\text{ cm}"),
        (r"2\text{ cm}\times6\text{ cm}", r"3\text{ cm}\times4\text{ cm}"),
        (r"1\text{ h }20\text{ min}", r"1\text{ h }25\text{ min}"),
        (r"5\text{ or 6}", "5"),
        (r"5\text{, 6 or 7}", "5"),
        (r"5\text{ of 6}", "5"),
        ("5 out of 6", "5"),
        (r"20\text{ to }30", "20"),
        (r"5\text{ apples and }3\text{ pears}", "5"),
        (r"5\text{ mod }7", r"5\text{ mod }8"),
        (r"5\pmod 7", "5"),
        ("52_8", "52"),
        ("4", "July 4"),
        ("3 million", "3"),
        ("2x=10", "10"),
        ("-x=5", "5"),
        ("x=2+4=5", "5"),
        ("x'", "x"),
        ("x_1", "x"),
        ("I", "i"),
    ],
    "words that decide": [
        (r"3:45\text{ AM}", r"3:45\text{ PM}"),
        ("1:15", r"3:45\text{ PM}"),
        (r"\frac{1}{15}", r"3:45\text{ PM}"),
        ("3.5", "3:30"),
        (r"n\text{ odd}", r"n\text{ even}"),
        ("n", r"n\text{ even}"),
        (r"5\text{ increase}", r"5\text{ decrease}"),
        (r"20\%\text{ gain}", r"20\%\text{ loss}"),
        (r"5\text{ June}", r"5\text{ July}"),
        (r"5\text{ red}", r"5\text{ blue}"),
        (r"5\text{ boys}", r"5\text{ girls}"),
        (r"3\text{ km north}", r"3\text{ km south}"),
        ("not 5", "5"),
        ("at most 5", "5"),
        ("5 or more", "5"),
        (r"\text{minus }5", "5"),
        ("half of 5", "5"),
        (r"\text{Monday}", r"\text{Tuesday}"),
        ("5 miles", "5 km"),
        (r"5^\circ\text{C}", r"5^\circ\text{F}"),
    ],
    "hedges": [
        ("The answer is $5$ or $6$.", "5"),
        ("The answer is $5$ or $6$.", "6"),
        ("The answer is $5$ or maybe 6.", "5"),
        ("The answer is $5$, $6$ and $7$.", "5"),
        (r"The answer is \(5\) or \(6\).", "5"),
        ("The answer is 5 or 6.", "5"),
        (r"Either $x=\boxed{2}$ or $x=\boxed{3}$.", "3"),
        (r"Either $x=\boxed{2}$ or $x=\boxed{3}$.", "2"),
        (r"$\boxed{2}$ or $\boxed{3}$", "3"),
        (r"\boxed{2}, or possibly \boxed{3}", "3"),
        (r"\boxed{5} or 6", "5"),
        (r"\boxed{5} or $x = 6$", "5"),
        (r"It is $4$ or $\boxed{5}$.", "5"),
        (r"#### 5 or 6", "5"),
    ],
    "choices": [
        ("A", "B"),
        (r"\textbf{(C)}\ 7", "B"),
        ("B or C", "B"),
        ("(B), (C)", "B"),
        ("B. 7 or C. 8", "B"),
        ("7", "B"),
        ("E: some text", "B"),
        ("Be", "B"),
    ],
    "matrices": [
        (r"\begin{pmatrix}2&0\\1&2\end{pmatrix}", r"\left(\begin{array}{cc}2&0\\0&2\end{array}\right)"),
        (r"\begin{pmatrix}2&0\end{pmatrix}", r"\begin{pmatrix}2\\0\end{pmatrix}"),
        (r"\begin{vmatrix}2&0\\0&2\end{vmatrix}", r"\begin{pmatrix}2&0\\0&2\end{pmatrix}"),
    ],
    "mixed numbers and decimals": [
        ("1 1/4", "6/4"),
        ("1 1/4", "1/4"),
        ("1 1/4", "11/4"),
        ("0.3333334", "1/3"),
        ("2000001/2", "1000000"),
        (r"0.\overline{34}", r"\frac{1}{3}"),
        (r"0.1\overline{6}", "0.16"),
        ("3.14159...", r"\pi"),
    ],
    "signs": [("（2，1）", "(1,2)"), ("x³", "x^2"), ("4√3", r"4\sqrt{2}"), ("½", r"\frac13"), ("－5", "5")],
    "numbers and formulas": [
        (r"\sin 31^\circ", "0.5"),
        (r"\sin 30", "0.5"),
        (r"2\cos 71^\circ", r"2\sin 20^\circ"),
        (r"e^{i\pi}", "1"),
        ("|x|", "x"),
        (r"\sqrt{x^2}", "x"),
        (r"\frac{1}{n}", r"\sqrt{\frac1n}"),
        ("10^{60}+1", "10^{60}"),
        (r"\sqrt{2}+10^{-20}", r"\sqrt 2"),
        ("A", "a"),
        ("a+A", "2a"),
        (r"\frac{dy}{dt}=kx", r"\frac{dx}{dt}=kx"),
        (r"\lfloor n \rfloor", "n"),
        ("(-1)^n", "1"),
    ],
    "labels": [
        (r"P(X>2)=\frac16", "0.2"),
        (r"P(X>2)=\frac15", r"P(X>3)=\frac15"),
        (r"x_{\max}=5", r"x_{\min}=5"),
        ("y=5", "x=5"),
        (r"x=5, y=2", r"x=2, y=5"),
        ("x^2=5", "5"),
    ],
    "looks": [(r"\boldsymbol{12}", "13"), ("**12**", "13"), (r"\textcolor{13}{12}", "13"), ("2**3", "6")],
}
RIGHT = {
    "what a parser drops": [
        (r"4\text{ pears, }3\text{ apples}", r"3\text{ apples, }4\text{ pears}"),
        (r"5\text{ ft }6\text{ in}", r"66\text{ in}"),
        ("5.5 ft", r"5\text{ ft }6\text{ in}"),
        (r"1\text{ hour and }20\text{ minutes}", r"80\text{ min}"),
        (r"3\text{ cm}\times4\text{ cm}", r"3\text{ cm} \times 4\text{ cm}"),
        ("5 apples", "5"),
        ("5", r"5\text{ apples}"),
        ("3 million", "3000000"),
        (r"\$2.5\text{ billion}", "2500000000"),
        ("x=2+3=5", "5"),
        (r"12\sqrt{3}\approx 20.78", r"12\sqrt3"),
        (r"2x=10", "x=5"),
    ],
    "words that decide": [
        ("15:45", r"3:45\text{ PM}"),
        ("3:45 p.m.", r"3:45\text{ PM}"),
        (r"\text{July 4}", "4 July"),
        (r"5\text{ the increase}", r"5\text{ increase}"),
        ("Yes", r"\text{yes}"),
        (r"\boxed{3:45} PM", r"3:45\text{ PM}"),
    ],
    "hedges": [
        (r"Either $x=\boxed{2}$ or $x=\boxed{3}$.", "2,3"),
        ("The answer is $5$ apples.", "5"),
        ("The answer is $5$, since $6$ is no prime.", "5"),
        (r"\boxed{\frac12} or 0.5", "0.5"),
        ("The answer is $2$ or $3$.", "3, 2"),
    ],
    "choices": [
        ("B. 7", "B"),
        (r"\textbf{(B)}\ 7", "B"),
        ("E: some text", "E"),
        ("b", "B"),
        ("(b)", "B"),
        ("B)", "B"),
        ("Option B", "B"),
        (r"\text{(B)}", "B"),
        ("B. 7", r"\text{(B)}"),
        ("E: some text", r"\text{(E)}"),
    ],
    "matrices": [
        (r"\begin{pmatrix}2&0\\0&2\end{pmatrix}", r"\left(\begin{array}{cc}2&0\\0&2\end{array}\right)"),
        (r"\left(\begin{array}{cc}2&0\\0&2\end{array}\right)", r"\begin{pmatrix}2&0\\0&2\end{pmatrix}"),
        (r"\begin{bmatrix}a&b\end{bmatrix}", r"\left[\begin{array}{cc}a&b\end{array}\right]"),
        ("(1,2)", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "mixed numbers and decimals": [
        ("1 1/4", "5/4"),
        ("#### 2 3/4", "2.75"),
        (r"-1\frac14", "-1.25"),
        (r"0.\overline{3}", r"\frac13"),
        ("0.1666...", r"\frac16"),
        (r"0.1\dot{6}", r"\frac16"),
        ("1.732051", r"\sqrt3"),
    ],
    "signs": [
        ("（1，2）", "(1,2)"),
        ("１２", "12"),
        ("5。", "5"),
        ("90°", "90"),
        ("90°", r"90^\circ"),
        ("4√2", r"4\sqrt{2}"),
        ("x²", "x^2"),
        ("∞", r"\infty"),
        ("−5", "-5"),
        ("2½", "2.5"),
        ("x ≤ π", r"x \le \pi"),
    ],
    "numbers and formulas": [
        (r"\frac{1}{\sqrt{n}}", r"\sqrt{\frac1n}"),
        (r"1-\frac1e", r"1-\frac{1}{\mathrm{e}}"),
        (r"\sin 30^\circ", "0.5"),
        (r"2\cos 70^\circ", r"2\sin 20^\circ"),
        (r"e^{i\pi}", "-1"),
        (r"\ln x^2", r"2\ln x"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
        (r"2\sqrt{x-1000}", r"\sqrt{4x-4000}"),
        ("sqrt(2)/2", r"\frac{1}{\sqrt2}"),
        ("2pi", r"2\pi"),
    ],
    "labels": [
        (r"P(X>2)=\frac15", "0.2"),
        (r"x_{\max}=5", "5"),
        ("P(A|B)=0.2", "0.2"),
        (r"\approx 5", "5"),
        ("5=x", "5"),
        ("m+n=204", "204"),
        (r"\text{Area}=6", "6"),
        (r"\cos A=\frac12", "0.5"),
        ("5", r"x_{\max}=5"),
    ],
    "looks": [
        (r"\boldsymbol{13}", "13"),
        (r"\bm{13}", "13"),
        (r"{\bf 13}", "13"),
        (r"\textcolor{blue}{13}", "13"),
        (r"\mathsf{13}", "13"),
        (r"\underline{13}", "13"),
        ("**13**", "13"),
        ("The answer is **13**.", "13"),
        (r"\mathbf{\frac{1}{2}}", "0.5"),
    ],
}


def misjudged(table, kind, reward):
    """The pairs of a kind with what training and evaluation made of them, where it is not this reward."""
    found = []
    for form, answer in table[kind]:
        whole = any(mark in form for mark in ("boxed", "####", "answer is"))
        response = form if whole else rf"So it is \boxed{{{form}}}."
        verdicts = [
            math_reward(response, answer),
            check(response, Reference(answers=(answer,), published=answer).to_json()),
        ]
        if [verdict.reward for verdict in verdicts] != [reward, reward]:
            found.append((form, answer, verdicts))
    return found


@pytest.mark.parametrize("kind", WRONG)
def test_no_wrong_answer_is_rewarded(kind):
    assert misjudged(WRONG, kind, 0.0) == []


@pytest.mark.parametrize("kind", RIGHT)
def test_no_right_answer_is_refused(kind):
    assert misjudged(RIGHT, kind, 1.0) == []


def test_an_answer_that_is_written_in_the_one_way_stays_as_it_is():
    for text in {text for table in (WRONG, RIGHT) for pairs in table.values() for pair in pairs for text in pair}:
        assert written(written(text)) == written(text), text
