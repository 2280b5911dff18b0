r"""Mathematical signs of Unicode as the LaTeX that they stand for: ½, √2, x², １２, ≤, π, 或."""

import re
import unicodedata
from fractions import Fraction

# What NFKC would spoil: it makes x² into x2 and ½ into 1⁄2, which read as other numbers.
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙₖₘₓ", "0123456789+-()nkmx", strict=True))
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-", "×": r"\times ", "✕": r"\times ",
    "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "∕": "/", "⁄": "/", "±": r"\pm ", "∓": r"\mp ",
    "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "≡": r"\equiv ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ", "⊂": r"\subset ",
    "∅": r"\emptyset ",
    "∞": r"\infty ", "°": r"^\circ ", "º": r"^\circ ", "∠": r"\angle ", "△": r"\triangle ", "∘": r"\circ ",
    "→": r"\to ", "⟶": r"\to ", "∧": r"\land ", "∨": r"\lor ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "∣": "|", "∶": ":",
    "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "⋯": "...", "。": ".", "、": ",",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "ℓ": r"\ell ",
    "℃": r"^\circ \text{C}", "℉": r"^\circ \text{F}", "ⅇ": "e", "ⅈ": "i", "ℏ": r"\hbar ", "µ": r"\mu ", "⊥": r"\perp ",
    "Å": r"\AA ", "或": r"\text{ or }", "和": r"\text{ and }", "与": r"\text{ and }",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "ζ": r"\zeta ", "η": r"\eta ",
    "θ": r"\theta ", "κ": r"\kappa ", "λ": r"\lambda ", "μ": r"\mu ", "ν": r"\nu ", "ξ": r"\xi ", "π": r"\pi ",
    "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ϕ": r"\phi ", "χ": r"\chi ", "ψ": r"\psi ",
    "ω": r"\omega ", "Γ": r"\Gamma ", "Δ": r"\Delta ", "∆": r"\Delta ", "Θ": r"\Theta ", "Λ": r"\Lambda ", "Π": r"\Pi ",
    "Σ": r"\Sigma ", "Φ": r"\Phi ", "Ψ": r"\Psi ", "Ω": r"\Omega ",
    # Looks like nothing at all.
    "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "", "\u00ad": "", "\u2061": "", "\u2062": "",
}  # fmt: skip
_RAISED = re.compile(f"[{''.join(map(re.escape, _SUPERSCRIPTS))}]+")
_LOWERED = re.compile(f"[{''.join(map(re.escape, _SUBSCRIPTS))}]+")
_VULGAR = re.compile("[¼½¾⅐-⅞↉]")
_ROOTS = re.compile(
    r"([√∛∜])\s*(\\sqrt(?:\[[0-9]\])?\{[^{}]*\}|\((?:[^()]|\([^()]*\))*\)|\{[^{}]*\}|[0-9]+(?:\.[0-9]+)?|\\?[A-Za-z]+)"
)
_ROOT = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}


def in_ascii(text: str) -> str:
    r"""Signs that are not ASCII as the LaTeX that they stand for; letters of other scripts stay.

    >>> in_ascii("（4√2，x²−½）"), in_ascii("１２ ≤ π")
    ('(4\\sqrt{2},x^{2}-\\frac{1}{2})', '12 \\le  \\pi ')
    """
    if text.isascii():
        return text
    text = _RAISED.sub(lambda raised: f"^{{{''.join(map(_SUPERSCRIPTS.__getitem__, raised.group()))}}}", text)
    text = _LOWERED.sub(lambda lowered: f"_{{{''.join(map(_SUBSCRIPTS.__getitem__, lowered.group()))}}}", text)
    text = _VULGAR.sub(lambda sign: fraction(Fraction(unicodedata.numeric(sign.group())).limit_denominator(10)), text)
    text = "".join(_SIGNS.get(sign, sign) for sign in text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_SIGNS.get(sign, sign) for sign in text)
    # A root of a root: the inner one first, or behind the other's bracket.
    for _ in range(3):
        text = _ROOTS.sub(_root, text)
    return text


def _root(sign: re.Match) -> str:
    return f"{_ROOT[sign[1]]}{{{sign[2].strip('{}') if sign[2][0] == '{' else _bare(sign[2])}}}"


def _bare(text: str) -> str:
    """The text without the pair of round brackets around it."""
    return text[1:-1] if text.startswith("(") else text


def fraction(value: Fraction) -> str:
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
