"""YAML as settings are written in it: the numbers, true, false and null of YAML 1.2; every other plain word is a text.

PyYAML follows YAML 1.1, in which 010 is eight, 1:30 is ninety and `no` is false. Python's `None` is null here too; a
text of that word stands in quotes. A key that stands twice in one mapping is an error.
"""

import json
import math
import re
from collections.abc import Hashable
from decimal import Decimal
from typing import Any

import yaml

from aepo.number_text import vanishes

_TAG = "tag:yaml.org,2002:"
# From here on a double does not hold every whole number.
EXACT = 2**53
_WORDS = {
    "null": (r"~|null|Null|NULL|None|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - the name is PyYAML's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == f"{_TAG}merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in keys:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands there twice; take one out", key_node.start_mark
                    )
                keys.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)

    def construct_number(self, node: yaml.ScalarNode) -> float | int:
        text = self.construct_scalar(node)
        number = self.construct_yaml_float(node)
        if math.isfinite(number) and vanishes(text):
            raise yaml.constructor.ConstructorError(
                None, None, f"the number {text} is too small to be held", node.start_mark
            )
        # 9007199254740993.0 is a whole number that a double does not hold; an int field has room for it.
        exact = Decimal(text) if EXACT <= abs(number) < 2**63 else None
        return int(exact) if exact is not None and exact != number and exact == int(exact) else number


class _Dumper(yaml.SafeDumper):
    """Quotes what this reader or a reader of YAML 1.1 would not take for a text."""


for _tag, (_pattern, _first) in _WORDS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), _first)
# No dates, bytes or sets: a setting is none of these.
_Loader.yaml_constructors = {
    _TAG + kind: yaml.SafeLoader.yaml_constructors[_TAG + kind] for kind in ("null", "bool", "str", "seq", "map")
} | {
    _TAG + "int": _Loader.construct_whole,
    _TAG + "float": _Loader.construct_number,
    None: yaml.SafeLoader.yaml_constructors[None],
}


def loaded(text: str | bytes) -> Any:
    """What a YAML text says.

    Raises:
        ValueError: it is none, a key stands there twice, or it is nested without end; one line.

    >>> loaded("[010, 1e3, no, None, 'None', 0x10, 1:30]")
    [10, 1000.0, 'no', None, 'None', 16, '1:30']
    """
    try:
        found = yaml.load(text, _Loader)
        # An alias may stand inside of what it names: whatever walks through that would not end.
        json.dumps(found, default=str, skipkeys=True)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise ValueError(f"{error.problem or error.context}{place}") from error
    # KeyError: a tag that its value does not have, as in `!!bool 3`.
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found


def word(text: str) -> Any:
    """A number, true, false or null where the whole text is one, blanks around it aside; else the text as it is.

    >>> word(" 1e3"), word("5 # 6"), word("&a"), word("~")
    (1000.0, '5 # 6', '&a', None)
    """
    if any(re.fullmatch(pattern, text.strip()) for tag, (pattern, _) in _WORDS.items() if tag != "merge"):
        return loaded(text.strip())
    return text


def dumped(value: Any) -> str:
    """A text that `loaded` reads back as the same value; ASCII, whatever the locale.

    >>> print(dumped({"a": "1e3", "b": 1000.0, "c": None, "d": "None"}), end="")
    a: '1e3'
    b: 1000.0
    c: null
    d: 'None'
    """
    # Unfolded: a long text stays on a line of its own.
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=float("inf"))
