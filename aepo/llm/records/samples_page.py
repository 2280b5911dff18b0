"""Responses as a page of HTML: one file, without script and without anything from a network."""

from collections.abc import Sequence
from html import escape

from aepo.llm.records.kept_samples import Forking, Response, Token
from aepo.llm.records.samples import shown
from aepo.llm.records.samples_text import facts, legend, verdict

STYLE = """\
body { font: 15px/1.6 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 2rem 0 .3rem; }
pre { font: 14px/1.7 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0; }
.prompt { color: #666; border-left: 3px solid #ddd; padding-left: .7rem; }
.verdict, .note { color: #444; } span { border-radius: 2px; }
.f1 { background: #ffe9a8; } .f2 { background: #ffb45c; } .f3 { background: #d7301f; color: #fff; }
"""
"""The colours of forking tokens rise with the entropy: yellow, orange, red."""


def page(
    responses: Sequence[Response], forks: Forking | None, *, title: str, share: float, notes: Sequence[str] = ()
) -> str:
    """The page; a token tells its entropy and log-prob where the mouse is over it.

    Args:
        responses: in their order.
        forks: of these; None where no entropy was kept.
        title: such as the run's folder.
        share: of the tokens, that fork.
        notes: lines above the responses.
    """
    name = escape(shown(title))
    # The policy of the page itself: whatever a response says, nothing of it runs and nothing is fetched.
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>"
    )
    body = [f'<p class="note">{escape(shown(note))}</p>' for note in notes]
    if forks is not None:
        text, ranges = legend(forks, share)
        marks = [f'<span class="f{level}">&nbsp;{escape(one)}&nbsp;</span>' for level, one in enumerate(ranges, 1)]
        body.append(f'<p class="note">{escape(text)} {" ".join(marks)}</p>')
    for response in responses:
        body += [
            f"<h2>{escape(shown(facts(response)))}</h2>",
            # A browser leaves out the line end that follows the tag, and no other.
            f'<pre class="prompt">\n{escape(shown(response.prompt))}</pre>',
            f"<pre>\n{_coloured(response, forks)}</pre>",
            f'<p class="verdict">{escape(shown(verdict(response)))}</p>',
        ]
    return "\n".join([head, *body, "</body>\n</html>\n"])


def _coloured(response: Response, forks: Forking | None) -> str:
    if forks is None or not response.tokens:
        return escape(shown(response.text))
    return "".join(_span(token, forks.level(token)) for token in response.tokens)


def _span(token: Token, level: int) -> str:
    mark = f' class="f{level}"' if level else ""
    numbers = f"H {token.entropy:.3f}, ln p {token.logp:.3f} nats"
    return f'<span{mark} title="{numbers}">{escape(shown(token.piece, visible=level > 0))}</span>'
