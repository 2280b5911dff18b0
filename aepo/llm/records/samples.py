"""Responses with their verdicts, for a person who wants to see what the reward rewards."""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from aepo.batch import Rollouts
from aepo.llm.grading import Verdict
from aepo.llm.records.text_pieces import UNKNOWN, text_pieces

if TYPE_CHECKING:
    # It brings transformers, which whoever reads the file need not have.
    from aepo.llm.questions.task import Task

SAMPLES_FILE = "samples.jsonl"
"""Under the run's `out`, a row a response."""
BY_TOKEN = ("tokens", "entropy", "logp")
"""Of a row, the lists with an entry for each token."""
LINE_END = "\u21b5"
"""An arrow, in front of the end of a line whose token is marked: the end itself has no place to be coloured."""
DECIMALS = 4
"""Of a token's numbers: more than a person tells apart, and half as long a file."""
# A row of the console; the file has the whole text.
CONSOLE_WIDTH = 160
# Of it for the reason and for the answer each: prompt and response are what one wants to see.
MOST_OF_A_FACT = 30


def chosen_rows(right: Sequence[bool], *, group_size: int, count: int) -> list[int]:
    """Which rows to show: the first of each of the first groups, and if `count` >= 2 a right and a wrong one if any.

    Args:
        right: (R,) whether each row passed; groups are contiguous.
        group_size: G.
        count: rows wanted, >= 1; fewer where there are fewer.

    Returns:
        Rows, none twice; nothing is drawn, so a resumed run shows the same.

    >>> chosen_rows([False, False, False, False, True, True], group_size=2, count=2)
    [0, 4]
    """
    order = sorted(range(len(right)), key=lambda row: (row % group_size, row // group_size))
    chosen = order[:count]
    if len(chosen) >= 2 and len({right[row] for row in chosen}) == 1:
        others = [row for row in order if right[row] != right[chosen[0]]]
        chosen[-1:] = others[:1] or chosen[-1:]
    return chosen


def samples(
    rollouts: Rollouts,
    verdicts: Sequence[Verdict],
    task: "Task",
    *,
    step: int,
    branch: str,
    temperature: float,
    count: int,
) -> list[dict[str, Any]]:
    """Rows of samples.jsonl. Of each token: its piece of text, and, both in nats, the entropy of the distribution that
    it comes from and its log-prob there. These are the trainer's at T = 1, whatever it was sampled at.

    Args:
        rollouts: of every rank, scored; the first len(verdicts) rows are this rank's, as on rank 0.
        verdicts: on those.
        task: whose prompts and responses these are.
        step, branch, temperature: where and how they were sampled.
        count: rows wanted.
    """
    found = []
    right = [verdict.right for verdict in verdicts]
    for row in chosen_rows(right, group_size=rollouts.group_size, count=count):
        prompt, length = int(rollouts.prompt[row]), int(rollouts.mask[row].sum())
        tokens = rollouts.token[row, :length].tolist()
        verdict = verdicts[row]
        found.append(
            {
                "step": step,
                "branch": branch,
                "temperature": temperature,
                "prompt": task.text(task.prompts[prompt]),
                "response": task.text(tokens),
                "answer": task.answer(prompt),
                "extracted": verdict.extracted,
                "reason": verdict.reason,
                "reward": float(rollouts.reward[row]),
                **_by_function(verdict, task.parts),
                "length": length,
                "ended": bool(tokens)
                and (tokens[-1] in task.end_ids or (task.stop is not None and task.stop.completed(tokens))),
                "mean_logp": float(rollouts.scored("old_logp")[row, :length].double().sum()) / max(length, 1),
                "tokens": text_pieces(task.text, tokens, name=task.tokenizer.convert_ids_to_tokens),
                "entropy": _rounded(rollouts.scored("entropy")[row, :length]),
                "logp": _rounded(rollouts.scored("old_logp")[row, :length]),
            }
        )
    return found


def _rounded(values: Tensor) -> list[float]:
    return [round(value, DECIMALS) for value in values.tolist()]


def _by_function(verdict: Verdict, parts: Sequence[str]) -> dict[str, Any]:
    """Where several functions judge: what each gave, none if one failed, and whether the response is right by it."""
    if not parts:
        return {}
    return {"rewards": dict(zip(parts, verdict.parts, strict=False)), "right": verdict.right}


def console_line(sample: dict[str, Any]) -> str:
    """One line for the console: how it was sampled, the verdict, prompt and response, cut in the middle."""
    reason = cut(one_line(sample["reason"]), MOST_OF_A_FACT, keep="start")
    head = f"  {sample['branch']} T={sample['temperature']:.2f} reward {sample['reward']:g} ({reason}): "
    answer = None if sample["answer"] is None else cut(one_line(sample["answer"]), MOST_OF_A_FACT, keep="start")
    tail = "" if answer is None else f"  [answer {answer}]"
    prompt, response = (one_line(sample[name]) for name in ("prompt", "response"))
    room = CONSOLE_WIDTH - len(head) - len(tail) - len(" -> ")
    # Prompts start with what is asked, responses end with what is answered.
    prompt = cut(prompt, max(room // 3, room - len(response)), keep="start")
    return f"{head}{prompt} -> {cut(response, room - len(prompt), keep='end')}{tail}"


def one_line(text: str) -> str:
    """Spaces for all white space; what a terminal would take for a command is shown as unknown.

    >>> one_line("a\\n b\\x1b[2J")
    'a b\ufffd[2J'
    """
    return shown(" ".join(text.split()))


def shown(text: str, *, visible: bool = False) -> str:
    """A text without what a terminal would take for a command, or UTF-8 cannot hold; line ends and tabs stay.

    Args:
        text: of any origin.
        visible: whether a line end is shown by a sign too.

    >>> shown("a\\n\\tb\\x1b[2J"), shown("\\n", visible=True) == LINE_END + "\\n"
    ('a\\n\\tb\ufffd[2J', True)
    """
    # On Windows and in web pages a line ends with two characters.
    safe = "".join(c if _harmless(c) else UNKNOWN for c in text.replace("\r\n", "\n"))
    return safe.replace("\n", f"{LINE_END}\n") if visible else safe


def _harmless(character: str) -> bool:
    # Blanks other than the one of ASCII do not count as printable.
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def cut(text: str, width: int, *, keep: str) -> str:
    """At most `width` characters of a text, with an ellipsis where some are missing.

    >>> cut("abcdef", 4, keep="start"), cut("abcdef", 4, keep="end"), cut("abc", 4, keep="end")
    ('abc…', '…def', 'abc')
    """
    if len(text) <= width:
        return text
    return text[: width - 1] + "…" if keep == "start" else "…" + text[len(text) - width + 1 :]


def markdown(sample: dict[str, Any]) -> str:
    """The same as TensorBoard shows it: everything but what is of one token, texts as they are."""
    facts = ", ".join(f"{k} {v}" for k, v in sample.items() if k not in ("prompt", "response", *BY_TOKEN))

    def block(text: str) -> str:
        return "\n".join("    " + line for line in text.splitlines())

    return f"{facts}\n\n{block(sample['prompt'])}\n\n---\n\n{block(sample['response'])}"
