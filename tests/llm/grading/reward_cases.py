"""Reward functions as users write them, in a module that grading workers can import."""

import numpy as np


def two(response, answer):
    return float(response == answer)


def form(response, answer):
    return 1.0 if response.startswith("<") else -1.0


def numpy_truth(response, answer):
    return np.bool_(response == answer)


def by_level(response, answer, level, *, scale=1.0):
    return level * scale


def keyword_only(response, answer, *, level):
    return level


def every(response, answer, **columns):
    return float(sorted(columns) == ["level", "question"])


def own_name(response, question, **columns):
    return float("question" not in columns and "answer" in columns)


def places_only(response, answer, /, **columns):
    return float("answer" in columns)


def needs_more(response, answer, ground_truth):
    return 1.0


def one(response):
    return 1.0


def verl_batch(**kwargs):
    return 1.0


def hidden(response, answer, level, /):
    return 1.0


def any_place(*arguments):
    return float(len(arguments))


def broken(response, answer):
    raise LookupError("no judge here")


class Judge:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, response, answer, level=0):
        return self.factor * level


judge = Judge(2)
