"""A run's sampled responses with their forking tokens coloured: those of high entropy, where the policy might go on
otherwise.

aepo show runs/train --step 100 --html samples.html
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it; whoever only reads a run needs no more.
    extras.require("sim")

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from aepo import atomic
from aepo.command import called
from aepo.errors import ENDED, NOT_WRITTEN, AepoError
from aepo.llm.records.kept_samples import Forking, Response, chosen, forking, kept
from aepo.llm.records.samples import shown
from aepo.llm.records.samples_page import page
from aepo.llm.records.samples_text import facts, legend, verdict

STYLES = ("", "black on #ffe9a8", "black on #ffb45c", "white on #d7301f")
"""By level, rising with the entropy; the page has the same colours."""
OPEN, CLOSE = "\u2039", "\u203a"
"""Around a forking token where there are no colours: small angle quotes, as many as its level."""
WITHOUT = (
    "these responses have no entropies, which runs keep since `aepo show` came: they are shown without colours. A run "
    "that goes on keeps them from then on."
)


class NotWrittenError(AepoError):
    """The page could not be written."""

    exit_code = NOT_WRITTEN


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a share in (0, 1], got {text!r}")
    return value


def _from(least: int):
    """A reader of whole numbers from `least` on."""

    def read(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, got {text!r}")
        return int(text)

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called("python -m aepo.llm.records.show"),
        allow_abbrev=False,
        description="Show a run's sampled responses, with the tokens of highest entropy coloured.",
        epilog="Entropies are the trainer's, in nats, at T = 1. NO_COLOR=1 marks tokens by signs.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run (its --out), or a samples.jsonl")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--step", metavar="N", type=_from(0), help="only the responses of this step")
    steps.add_argument(
        "--last", metavar="N", type=_from(1), default=1, help="of the last N steps with some (default: 1)"
    )
    parser.add_argument("--branch", metavar="NAME", help="only those of main or of tempered")
    parser.add_argument("--count", metavar="N", type=_from(1), help="at most N of each step and branch (default: all)")
    parser.add_argument(
        "--top",
        metavar="SHARE",
        type=_share,
        default=0.2,
        help="share of the tokens that count as forking (default: 0.2)",
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write one page, which needs no network, instead")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; what its exit codes say is in `aepo.errors.EXIT_CODES`."""
    typed = _parser().parse_args(argv)
    try:
        found = kept(typed.run)
        responses = chosen(found, step=typed.step, last=typed.last, branch=typed.branch, count=typed.count)
        forks = forking(responses, typed.top)
        notes = [WITHOUT] if forks is None else []
        if found.damaged:
            lines = ", ".join(map(str, found.damaged[:5])) + (", ..." if len(found.damaged) > 5 else "")
            notes.append(f"{found.path}: left out {len(found.damaged)} damaged lines ({lines})")
        if typed.html is None:
            print_responses(responses, forks, share=typed.top, notes=notes)
        else:
            text = page(responses, forks, title=f"Responses of {typed.run}", share=typed.top, notes=notes)
            try:
                atomic.write_text(typed.html, text)
            except OSError as error:
                raise NotWrittenError(f"--html={typed.html}: cannot be written: {error}") from error
            print("\n".join([*notes, f"{typed.html}: {len(responses)} responses"]))
    except AepoError as problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        return problem.exit_code
    return ENDED


def print_responses(
    responses: Sequence[Response],
    forks: Forking | None,
    *,
    share: float,
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """The responses under each other, with a legend above them.

    Args:
        responses: in their order.
        forks: of these; None where no entropy was kept.
        share: of the tokens, that fork.
        notes: lines above.
        console: where; standard output by default, whose environment (NO_COLOR) it heeds.
    """
    if console is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that cannot show a character is no reason to end.
            sys.stdout.reconfigure(errors="replace")
        console = Console(highlight=False)
    coloured = console.color_system is not None and not console.no_color

    def marked(text: str, level: int) -> Text:
        if not level or coloured:
            return Text(text, style=STYLES[level])
        return Text(f"{OPEN * level}{text}{CLOSE * level}")

    def show(*parts: Text | str) -> None:
        # Text, not markup, and the terminal's own line breaks: a response is shown as it is.
        console.print(Text.assemble(*parts), soft_wrap=True)

    for note in notes:
        show(shown(note))
    if forks is not None:
        text, ranges = legend(forks, share)
        show(text, *(part for level, one in enumerate(ranges, 1) for part in (" ", marked(f" {one} ", level))))
    for response in responses:
        show("\n", Text(shown(facts(response)), style="bold"))
        show(Text(shown(response.prompt), style="dim"))
        if forks is None or not response.tokens:
            show(shown(response.text))
        else:
            levels = [(token, forks.level(token)) for token in response.tokens]
            show(*(marked(shown(token.piece, visible=level > 0), level) for token, level in levels))
        show(Text(shown(verdict(response)), style="italic"))


if __name__ == "__main__":
    sys.exit(main())
