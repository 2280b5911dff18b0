r"""Questions with a reference answer, read from files as their publishers ship them, or from the dataset hub.

A column of questions holds texts or conversations (`aepo.llm.questions.conversations`). A column may be nested:
"reward_model.ground_truth" is a key of an object, "choices[0].text" one of a list's first element. Files are .jsonl,
.json (a list of objects) or .parquet. Any column or row that cannot be used is a DataError that names the file, the
row, the column, what was met and the cure; all of it before a model is built.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aepo.llm.grading.extraction import last_boxed
from aepo.llm.questions.conversations import Asked, asked, readable
from aepo.llm.questions.files import DataError, Rows, hub_rows, kind, listed, read, shown
from aepo.suggest import did_you_mean

QUESTION_COLUMNS = ("question", "problem", "prompt")
ANSWER_COLUMNS = ("answer", "final_answer", "reward_model.ground_truth")
SOLUTION_COLUMN = "solution"
"""Where the answer stands in \\boxed{...}; only read if there is no column of ANSWER_COLUMNS."""
# Fewer may be a file that somebody wrote by hand to try something.
MANY_ROWS = 5


@dataclass(frozen=True, kw_only=True)
class Published:
    """A hub dataset under a short name."""

    source: str
    """Its id, ":config" added where it has several."""
    question_column: str
    answer_column: str


PUBLISHED = {
    # DAPO's 17k problems without its wrapped prompt and its hundredfold repetition, 17,398 rows, English and Chinese
    # as in the AEPO authors' file. Its column `solution` holds a bare answer. Config `en` has the English 14,116.
    "dapo_math_17k": Published(
        source="open-r1/DAPO-Math-17k-Processed:all",
        question_column="prompt",
        answer_column="reward_model.ground_truth",
    ),
    "gsm8k": Published(source="openai/gsm8k:main", question_column="question", answer_column="answer"),
    # Hendrycks' MATH, 7,500 training and 5,000 test problems; the original repository was taken down.
    "math": Published(
        source="DigitalLearningGmbH/MATH-lighteval:default", question_column="problem", answer_column="solution"
    ),
}
"""What `data.train` may be called instead of a hub id; a file as its publisher ships it is read without the name."""


@dataclass(frozen=True, kw_only=True)
class Problem(Asked):
    """A question, what was said before it, and its reference answer."""

    answer: str
    """The final answer alone, plain or LaTeX; never empty."""
    row: int
    """From 1: the line of a .jsonl, the position anywhere else."""
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Every column of the row as it is, if they were asked for."""


def load_problems(
    source: str,
    *,
    question_column: str | None = None,
    answer_column: str | None = None,
    split: str = "train",
    with_columns: bool = False,
) -> tuple[Problem, ...]:
    r"""Every problem of a file or hub dataset, in its order.

    Answers become text: 27.0 is "27", a list of one is its element, '... #### 18' (GSM8K) is "18", and a
    column whose name contains "solution" gives the content of its last \boxed{...}. Blank lines of a .jsonl
    are skipped.

    Args:
        source: a path (.jsonl, .json, .parquet), a name in PUBLISHED, or a hub dataset "owner/name", ":config" added
            where it has several.
        question_column: None takes the one of QUESTION_COLUMNS that exists; several must agree in every row.
        answer_column: None takes the one of ANSWER_COLUMNS that exists, or else `solution`.
        split: of a hub dataset; files have none.
        with_columns: whether problems keep their rows' columns.

    Raises:
        DataError: no such source, a file that cannot be read, a missing column, a row without question or answer, or
            one question in most of the rows (`check_variety`).
    """
    published = PUBLISHED.get(source)
    if published is not None:
        rows = hub_rows(published.source, split)
        source = f"{source} ({published.source})"
        question_column = question_column or published.question_column
        answer_column = answer_column or published.answer_column
    else:
        rows = read(source, split)
    if not rows:
        raise DataError(f"{source}: no rows; expected at least one problem")
    question_column = _question_column(rows, source, wanted=question_column)
    answer_column = _answer_column(rows, source, wanted=answer_column)
    problems = []
    for row, values in rows:
        place = f"{source}, row {row}"
        for column in (question_column, answer_column):
            if not _has(values, column):
                raise DataError(f"{place}: no column {column!r}, found {listed(values)}; add it, or remove the row")
        found = asked(_at(values, question_column), place=place, field=question_column)
        answer = _answer(_at(values, answer_column), answer_column, f"{place}, column {answer_column!r}")
        columns = values if with_columns else {}
        problems.append(Problem(question=found.question, before=found.before, answer=answer, row=row, columns=columns))
    check_variety(problems, source, cure=f"name the column of questions with question_column, not {question_column!r}")
    return tuple(problems)


def check_variety(problems: Sequence[Asked], source: str, *, cure: str) -> None:
    """That the rows ask different things: if most ask the same, a column was read that holds no questions.

    Data sets that repeat each of their questions many times pass, as none of these fills half of the rows.

    Args:
        problems: of every row.
        source: for the message.
        cure: what to do if it was not meant.

    Raises:
        DataError: one question in more than half of the rows, and in MANY_ROWS or more.
    """
    # By its words: blanks and line ends between them make no other question.
    asked_by_words = Counter((" ".join(one.question.split()), one.before) for one in problems)
    ((question, before), count), *_ = asked_by_words.most_common(1)
    if count >= MANY_ROWS and 2 * count > len(problems):
        said = "" if not before else f" (behind {len(before)} other message{'s' * (len(before) > 1)})"
        raise DataError(
            f"{source}: {count} of {len(problems)} rows ask the same question, {shown(question)!r}{said}; {cure}, or "
            "remove the repeated rows"
        )


@dataclass(frozen=True, kw_only=True)
class Distinct:
    """Problems of which no two ask the same."""

    problems: tuple[Problem, ...]
    repeated: int
    """Left out: question and answer were there before."""
    contradicted: int
    """Left out: the question was there before, with another answer."""


def distinct(
    problems: Iterable[Problem], *, heed_systems: bool = True, prompt_of: Callable[[Problem], str] | None = None
) -> Distinct:
    """The first problem of each question, in their order; later ones are counted and left out.

    A question with two answers is left with its first: which one is right is not for us to say, and with both some
    error would be rewarded for sure.

    Args:
        problems: in the file's order.
        heed_systems: whether questions behind different system messages are different ones.
        prompt_of: what is asked of a problem, where that is more than its question.

    >>> a, b = (Problem(question="1+1?", answer=x, row=1) for x in ("2", "3"))
    >>> found = distinct([a, b, a])
    >>> len(found.problems), found.repeated, found.contradicted
    (1, 1, 1)
    """
    first: dict[Any, Problem] = {}
    repeated = contradicted = 0
    for problem in problems:
        key: Any = (problem.question, problem.before if heed_systems else problem.before[problem.has_system :])
        if prompt_of is not None:
            key = prompt_of(problem)
        other = first.get(key)
        if other is None:
            first[key] = problem
        elif other.answer == problem.answer:
            repeated += 1
        else:
            contradicted += 1
    return Distinct(problems=tuple(first.values()), repeated=repeated, contradicted=contradicted)


# Not None, which a column may hold.
_ABSENT = object()


def _at(values: dict[str, Any], column: str) -> Any:
    """What stands in a column, nested or not; _ABSENT where there is no such column."""
    # A plain name wins, whatever its characters.
    if column in values:
        return values[column]
    if not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*", column):
        return _ABSENT
    found: Any = values
    for key, position in re.findall(r"([^.\[\]]+)|\[(\d+)\]", column):
        if key and isinstance(found, dict) and key in found:
            found = found[key]
        elif position and isinstance(found, list) and int(position) < len(found):
            found = found[int(position)]
        else:
            return _ABSENT
    return found


def _has(values: dict[str, Any], column: str) -> bool:
    return _at(values, column) is not _ABSENT


def _question_column(rows: Rows, source: str, *, wanted: str | None) -> str:
    present = _present(rows, source, wanted=wanted, known=QUESTION_COLUMNS, option="question_column")

    def read_as_asked(values: dict[str, Any], column: str, row: int) -> Any:
        return asked(_at(values, column), place=f"{source}, row {row}", field=column) if column in values else _ABSENT

    return _agreed(rows, source, present, option="question_column", read_value=read_as_asked)


def _answer_column(rows: Rows, source: str, *, wanted: str | None) -> str:
    known = ANSWER_COLUMNS if any(_has(rows[0][1], name) for name in ANSWER_COLUMNS) else (SOLUTION_COLUMN,)
    present = _present(rows, source, wanted=wanted, known=known, option="answer_column")
    # A list of answers beside one that is a text says the same in another form.
    present = [name for name in present if not isinstance(_at(rows[0][1], name), list | dict)] or present
    return _agreed(rows, source, present, option="answer_column", read_value=lambda row, column, _: _at(row, column))


def _present(rows: Rows, source: str, *, wanted: str | None, known: Sequence[str], option: str) -> list[str]:
    """The column asked for, or those known ones that the first row has."""
    columns = rows[0][1]
    if wanted is not None:
        if not _has(columns, wanted):
            near = did_you_mean(wanted, columns)
            raise DataError(f"{source}: no column {wanted!r} ({option}), found {listed(columns)}{near}")
        return [wanted]
    present = [name for name in known if _has(columns, name)]
    if not present:
        near = next((s for s in (did_you_mean(name, columns) for name in known) if s), "")
        raise DataError(
            f"{source}: none of the columns {listed(known)}, found {listed(columns)}; name it with {option}{near}"
        )
    return present


def _agreed(
    rows: Rows,
    source: str,
    present: Sequence[str],
    *,
    option: str,
    read_value: Callable[[dict[str, Any], str, int], Any],
) -> str:
    """The first of the columns, if the others say the same in every row."""
    first, *others = present
    for row, values in rows if others else ():
        for other in others:
            if read_value(values, first, row) != read_value(values, other, row):
                raise DataError(
                    f"{source}, row {row}: columns {first!r} and {other!r} differ, found {listed(values)}; "
                    f"name the one to read with {option}"
                )
    return first


def _answer(value: Any, column: str, where: str) -> str:
    if isinstance(value, list):
        if len(value) > 1:
            raise DataError(
                f"{where}: a list of {len(value)} answers; expected one, so join them into one text (1,3,5)"
            )
        value = value[0] if value else None
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: empty answer; fill it in, or remove the row")
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise DataError(f"{where}: holds {kind(value)}; expected the answer as text or number")
    if isinstance(value, str):
        return _final_answer(readable(value, where), column, where)
    return decimal_text(value, where)


def decimal_text(number: float | Decimal, where: str) -> str:
    """The number in plain digits: 27.0 is "27", 1e-7 "0.0000001".

    Raises:
        DataError: it is not finite.

    >>> decimal_text(1e23, ""), decimal_text(Decimal("2.50"), ""), decimal_text(-0.0, "")
    ('100000000000000000000000', '2.5', '0')
    """
    # Not int(number), which has digits that nobody wrote: float's 1e23 is 99999999999999991611392.
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    if not exact.is_finite():
        raise DataError(f"{where}: the answer is {number}; expected a finite number or a text")
    if not exact:
        return "0"
    text = f"{exact:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _final_answer(text: str, column: str, where: str) -> str:
    if "solution" in column.lower():
        answer = last_boxed(text)
        if answer is None:
            raise DataError(
                rf"{where}: no \boxed{{...}} with balanced braces in {shown(text)}; name a column of final "
                "answers with answer_column, or remove the row"
            )
    else:
        answer = text.rsplit("####", 1)[-1]
    if not answer.strip():
        raise DataError(f"{where}: empty answer at the end of {shown(text[-60:])}; fill it in, or remove the row")
    return answer.strip()
