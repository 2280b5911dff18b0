"""What a field takes, by its kind: text as it was typed, numbers that are numbers, and one spelling of nothing.

The same for the trainer's fields, a method's options and the evaluation's options, typed or in a file:

- a text is taken to the letter; in a file, as YAML has it;
- `null` and `None` are no value: they unset a field that may be unset, and every other field refuses them;
- an empty text is the empty text in a prompt (`Words`); elsewhere it unsets what may be unset and is refused if not;
- a number is finite and of 64 bits; true and false are none.
"""

import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from aepo.errors import AepoError
from aepo.llm.settings import plain_yaml

NOTHING = ("null", "None")
"""What a person types for no value."""
EMPTY_COUNTS = "an empty text is one"
Words = Annotated[str | None, EMPTY_COUNTS]
"""A part of a prompt, where the empty text is another thing than none."""
# Linux's own limits for a path and a name in it: what is longer is neither a path nor a name of anything.
LONGEST_TEXT, LONGEST_NAME = 4095, 255
SHOWN = 200


def choices(kind: Any) -> tuple[Any, ...]:
    """The types that a field takes, or the values of a Literal among them.

    >>> choices(int | Literal["auto"] | None)
    (<class 'int'>, 'auto', <class 'NoneType'>)
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return tuple(one for part in typing.get_args(kind) for one in choices(part))
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else (kind,)


def is_text(kind: Any) -> bool:
    """Whether a field holds a text or a word out of a list, and nothing else but None."""
    return all(one is str or isinstance(one, str) or one is type(None) for one in choices(kind))


def optional(kind: Any) -> bool:
    """Whether a field may be unset."""
    return type(None) in choices(kind)


def typed_value(kind: Any, text: str) -> Any:
    """What was typed for a field: a text to the letter, a number as it stands, lists and sections as YAML. For a list
    of texts what is no list is one text, to the letter, blanks and line ends included.

    Raises:
        ValueError: a list or section that is not readable, or a number of thousands of digits.

    >>> typed_value(str, " #1: [a]"), typed_value(float | None, "1e-3"), typed_value(str | None, "None")
    (' #1: [a]', 0.001, None)
    >>> typed_value(tuple[str, ...], "\\n"), typed_value(tuple[str, ...], ' ["a", "b"]')
    ('\\n', ['a', 'b'])
    """
    if text in NOTHING:
        return None
    if is_text(kind) or (_takes_texts(kind) and text and not text.lstrip().startswith("[")):
        return text
    try:
        if _takes_structures(kind):
            return plain_yaml.loaded(text)
        value = plain_yaml.word(text)
    except ValueError as error:
        raise ValueError(f"not readable: {error}, got {shown(text)}") from error
    # What is typed for a number and is none is refused as it was typed, and so are other spellings of null.
    nothing = value is None and (not optional(kind) or text.strip().lower() == "null")
    return text if nothing else value


def _takes_texts(kind: Any) -> bool:
    return any(typing.get_origin(one) in (tuple, list) and typing.get_args(one)[0] is str for one in choices(kind))


def _takes_structures(kind: Any) -> bool:
    return any(
        typing.get_origin(one) in (tuple, list, dict) or (isinstance(one, type) and issubclass(one, BaseModel))
        for one in choices(kind)
    )


def of_kind(kind: Any, value: Any, *, empty_counts: bool = False) -> Any:
    """The value, where its field can have it; what pydantic checks by itself is left to it.

    Args:
        kind: the field's annotation.
        value: before pydantic makes the field's type of it.
        empty_counts: whether the empty text is a text.

    Raises:
        ValueError: true or false for a number, a number beyond 64 bits, a text that names nothing.
    """
    if value is None and is_text(kind) and not optional(kind) and str in choices(kind):
        raise ValueError("must name something, and null names nothing; leave the option out for its default")
    if isinstance(value, str):
        if optional(kind) and value.lower() in ("none", "null"):
            raise ValueError("is no value; write null, as it stands, to leave it unset")
        return _text(kind, value, words=empty_counts) if is_text(kind) else value
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, bool) and _is_number(kind):
            raise ValueError("must be a number, and true and false are none")
        if isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("must be a number of 64 bits")
    return value


def _is_number(kind: Any) -> bool:
    return any(
        one in (int, float)
        or (isinstance(one, int) and not isinstance(one, bool))
        or any(part in (int, float) for part in typing.get_args(one))
        for one in choices(kind)
    ) and bool not in choices(kind)


def _text(kind: Any, value: str, *, words: bool) -> str | None:
    """A text, in its field: the name of something, or words of a prompt."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError("is not UTF-8; type it in that encoding") from error
    if words or str not in choices(kind):
        return value
    if value == "" and optional(kind):
        return None
    if "\0" in value:
        raise ValueError("holds the character NUL, which no name can have; leave it out")
    if not value.strip():
        raise ValueError("names nothing; name something, or leave the option out")
    if size > LONGEST_TEXT or any(len(part.encode()) > LONGEST_NAME for part in value.split("/")):
        raise ValueError(f"is longer than a path ({LONGEST_TEXT} bytes) or a name in one ({LONGEST_NAME}) can be")
    return value


class OptionsError(AepoError, ValueError):
    """Options that are not of their kind, by name."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))


def checked(given: Mapping[str, Any], kinds: Mapping[str, Any], *, endless: tuple[str, ...] = ()) -> dict[str, Any]:
    """Options whose names are not fields of a model, each as its kind has it; those of unknown names as they are.

    Args:
        given: name -> value.
        kinds: name -> annotation.
        endless: those that may be infinite.

    Raises:
        OptionsError: every one that is not of its kind.
    """
    found, problems = dict(given), {}
    for name in given.keys() & kinds.keys():
        kind = float if float in choices(kinds[name]) and not optional(kinds[name]) else kinds[name]
        try:
            value = TypeAdapter(kind).validate_python(of_kind(kind, given[name]))
            if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and name not in endless)):
                raise ValueError("must be a finite number")
            found[name] = value
        except ValidationError as error:
            problems[name] = f"{error.errors()[0]['msg']}, got {shown(given[name])}"
        except ValueError as error:
            problems[name] = f"{error}, got {shown(given[name])}"
    if problems:
        raise OptionsError(dict(sorted(problems.items())))
    return found


def shown(value: Any) -> str:
    """A value in a message: on one line, and its start only where it is long."""
    text = ascii(value) if not repr(value).isprintable() else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
