"""Numbers as they are typed: whether a double can hold one at all."""


def vanishes(text: str) -> bool:
    """Whether a decimal number that is not zero is too small for a double, which would make it zero.

    Args:
        text: of a number that `float` reads.

    >>> vanishes("1e-400"), vanishes("0e-400"), vanishes("-5e-324")
    (True, False, False)
    """
    return float(text) == 0 and any(digit in "123456789" for digit in text.lower().partition("e")[0])
