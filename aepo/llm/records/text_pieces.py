"""A response's text by its tokens: the piece that each of them adds."""

from collections.abc import Callable, Sequence

UNKNOWN = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character."""
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8 at most, and tokens too, of which none has less than a byte."""


def text_pieces(
    text: Callable[[Sequence[int]], str], tokens: Sequence[int], *, name: Callable[[int], str]
) -> list[str]:
    """What each token adds to the text of those before it; together they are that text, with the names added.

    A tokenizer that reads one token alone may lose the blank before it, or know a part of a character only. So each is
    read behind the one before; the tokens of one character have no piece but the last of them. Where bytes are no text,
    there need not be as many signs for unknown ones as in the whole text.

    Args:
        text: of some tokens, such as `aepo.llm.questions.task.Task.text`.
        tokens: of the response.
        name: of a token that has no text, such as the end token's.

    >>> words = {0: "", 1: "Hello", 2: " world"}
    >>> text_pieces(lambda some: "".join(words[t] for t in some).strip(), [1, 2, 0], name="<{}>".format)
    ['Hello', ' world', '<0>']
    """
    pieces: list[str] = []
    # The tokens that are read, and their text; of these the last ones, after `before`, are open: parts of a character.
    window: list[int] = []
    before = now = ""
    open_tokens, last_open = 0, 0
    for token in tokens:
        longer = text([*window, token])
        if longer == now and not text([token]):
            pieces.append(name(token))
            continue
        window.append(token)
        now, open_tokens, last_open = longer, open_tokens + 1, len(pieces)
        if now.endswith(UNKNOWN) and open_tokens < LONGEST_CHARACTER:
            pieces.append("")
            continue
        pieces.append(_added(before, now))
        window = window[-open_tokens:]
        before = now = text(window)
        open_tokens = 0
    if open_tokens:
        pieces[last_open] = _added(before, now)
    return pieces


def _added(before: str, now: str) -> str:
    """What follows what both begin with: a sign for unknown bytes may have become the character that they began."""
    shared = (k for k, (a, b) in enumerate(zip(before, now, strict=False)) if a != b)
    return now[next(shared, min(len(before), len(now))) :]
