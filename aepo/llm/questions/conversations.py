"""What a row asks: a text, or a conversation that is read by its roles, never by the place of a message."""

import json
import re
from dataclasses import dataclass
from typing import Any

from aepo.llm.questions.files import DataError, kind, listed
from aepo.suggest import did_you_mean

ROLES = ("system", "user", "assistant")
BEYOND_TEXT = tuple(
    "tool_calls function_call tool_call_id images image image_url videos video video_url audios audio input_audio file "
    "files attachments".split()
)
"""Keys of a message that say more than its text does: one that holds something is not asked without it."""
SHAREGPT = ("from", "value")
# What json.dumps and Python's repr make of messages: no question begins so. The edges of a graph do begin with "from".
_AS_TEXT = re.compile(
    r"""\s*\[?\s*\{\s*["'](role["']\s*:|content["']\s*:|(from|value)["']\s*:.*["'](value|from)["'].*\]\s*$)""",
    re.DOTALL,
)
# The same behind other keys, inside of something else, or written out by numpy: both keys of one message, anywhere.
_HOLDS_MESSAGES = re.compile(
    r"""\s*["']?(array\()?\s*[\[{].*\\?["'](role\\?["']\s*:.*\\?["']content|content\\?["']\s*:.*\\?["']role)\\?["']\s*:""",
    re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn before the question."""

    role: str
    """One of ROLES."""
    content: str


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, and what was said before it."""

    question: str
    """Without white space around it, otherwise as published; never empty."""
    before: tuple[Message, ...] = ()
    """A system message at most, as the first, and earlier turns."""

    @property
    def has_system(self) -> bool:
        """Whether the conversation brings its own system message."""
        return bool(self.before) and self.before[0].role == "system"

    @property
    def has_turns(self) -> bool:
        """Whether something was said before the question, by whomever."""
        return len(self.before) > self.has_system


def asked(value: Any, *, place: str, field: str) -> Asked:
    """What a cell of a question column asks.

    A list of messages `{"role": ..., "content": ...}` asks its last one, which must be the user's; a text that is such
    a list as JSON is read alike.

    Args:
        value: of the cell.
        place: file and row, for messages.
        field: the column's name; the parts of a conversation are named like "prompt[1].content".

    Raises:
        DataError: no question, or a conversation that cannot be understood: row and field, and the cure.
    """
    if isinstance(value, str):
        # A byte order mark is no part of a text.
        text = value.removeprefix("\ufeff")
        if _AS_TEXT.match(text) or _HOLDS_MESSAGES.match(text):
            value = _from_text(text, f"{place}, column {field!r}")
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return _conversation(value, place, field)
    return Asked(question=_question(value, f"{place}, column {field!r}"))


def _from_text(text: str, where: str) -> Any:
    try:
        found = json.loads(text)
        # Written as JSON twice, it is a text that holds one.
        return json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError) as problem:
        raise DataError(
            f"{where}: a conversation as text that is not valid JSON ({problem}), in {kind(text)}; write a list of "
            "objects with role and content, or its JSON"
        ) from problem


def _question(value: Any, where: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: empty question; fill it in, or remove the row")
    if not isinstance(value, str):
        raise DataError(
            f"{where}: holds {kind(value)}; expected a text, or a conversation, which is a list of messages with role "
            "and content"
        )
    return readable(value, where).strip()


def _conversation(messages: list[Any], place: str, field: str) -> Asked:
    read = [_message(one, f"{place}, {field}[{at}]") for at, one in enumerate(messages)]
    for at, message in enumerate(read[1:], 1):
        if message.role == "system":
            raise DataError(f"{place}, {field}[{at}].role: a system message behind another; put it first, or remove it")
    last = read[-1]
    if last.role != "user":
        raise DataError(
            f"{place}, {field}[{len(read) - 1}].role: the conversation ends with {last.role!r}; the question must be "
            "its last message, with the role 'user': remove what follows it"
        )
    return Asked(question=last.content.strip(), before=tuple(read[:-1]))


def _message(one: Any, where: str) -> Message:
    if not isinstance(one, dict):
        raise DataError(f"{where}: holds {kind(one)}; expected a message, an object with role and content")
    if "role" not in one and set(SHAREGPT) <= set(one):
        raise DataError(
            f"{where}: has the keys from and value (ShareGPT's form); rename them to role and content, and the roles "
            f"to {listed(ROLES)}"
        )
    for key in ("role", "content"):
        if key not in one:
            raise DataError(f"{where}.{key}: missing, found {listed(one)}; a message has role and content")
    role, content = one["role"], one["content"]
    if not isinstance(role, str) or role not in ROLES:
        near = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise DataError(f"{where}.role: holds {kind(role)}; expected one of {listed(ROLES)}{near}")
    for key in BEYOND_TEXT:
        # Columns of a table have a value in every message, null or empty where there is nothing.
        if one.get(key):
            raise DataError(f"{where}.{key}: holds {kind(one[key])}; only texts are asked, so remove the row")
    if not isinstance(content, str):
        raise DataError(f"{where}.content: holds {kind(content)}; expected one text, as no images or parts are asked")
    # An empty system message says that there is to be none, also not the template's own.
    if role != "system" and not content.strip():
        raise DataError(f"{where}.content: empty; fill it in, or remove the message or the row")
    return Message(role=role, content=readable(content, f"{where}.content"))


def readable(text: str, where: str) -> str:
    """The text, if it can be written in UTF-8, which every tokenizer and every file of a run asks for.

    Raises:
        DataError: half of a surrogate pair, which JSON can spell.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise DataError(
            f"{where}: the character {text[problem.start]!a} at {problem.start} is half of a surrogate pair, which no "
            "tokenizer takes; write the whole character, or remove the row"
        ) from problem
    return text
