r"""One way of writing for what looks different and means the same: the first thing done to either side of a comparison.

After `written` an answer is LaTeX in ASCII without looks and spacing commands: fractions are \frac{a}{b}, mixed numbers
sums, repeating decimals fractions, roots \sqrt{a}, degrees ^\circ, functions have their backslash, and words are
`\text{word}`, one each, without digits or signs in them. Nothing that could tell two answers apart is dropped here.
"""

import re
from fractions import Fraction
from functools import lru_cache

from aepo.llm.grading.ascii_signs import fraction, in_ascii
from aepo.llm.grading.wording import DECIDING

MAX_REPEATS = 12
"""Of digits in the block of a decimal that repeats: 1/7 has six, and longer ones are no answer."""

_ARGUMENT = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
"""A group in braces with two more levels in it."""
_LOOK = re.compile(rf"\\(?:boldsymbol|bm|mathbf|mathsf|mathit|mathtt|mathnormal|pmb|underline|uline)\s*{_ARGUMENT}")
_COLOURED = re.compile(rf"\\(?:textcolor|colorbox)\s*\{{[^{{}}]*\}}\s*{_ARGUMENT}|\\color\s*\{{[^{{}}]*\}}")
_SWITCH = re.compile(
    r"\\(?:bf|it|sf|tt|bfseries|itshape|displaystyle|textstyle|scriptstyle|limits|nolimits|normalsize|large|Large|LARGE"
    r"|huge|Huge|small|tiny|mathstrut|strut|noindent)(?![A-Za-z])"
)
_BOLD = re.compile(r"(\*{1,3}|_{2})(?=[^\s*])([^*]+)(?<=\S)\1")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z,;!:%$ {}])")
_SIZES = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*(?:\.(?=\s*$))?")
_SPACES = re.compile(
    r"(?<!\\)\\[,;:> ]|\\(?:quad|qquad|enspace|thinspace|medspace|thickspace|nobreakspace)(?![A-Za-z])"
    r"|\\[hv]?(?:phantom|space)\s*\{[^{}]*\}|\\(?:hfill|newline|par)(?![A-Za-z])|~|\s+"
)
# 1{,}080 and 1\,080, whose commas and spaces can be no separator of answers; 1,080 may be two answers.
_GROUPS = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:\s*(?:,\\!|\\!|\{,\}|\\,)\s*[0-9]{3})+(?![0-9])")
_BLANKS = re.compile(r"(?<![0-9.,/^_{\\])(?<![0-9] )[0-9]{1,3}(?: [0-9]{3})+(?![0-9.,]| ?[/\\])")
_WORDS = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|tt|normal|sc|md|up)?|mbox|hbox|mathrm|operatorname\*?|rm|emph)\s*\{([^{}]*)\}|\\rm(?![A-Za-z])"
)


def _plain_looks(text: str) -> str:
    """The text without what only changes its looks."""
    for _ in range(3):
        text, looks = _LOOK.subn(r"{\1}", text)
        text, colours = _COLOURED.subn(lambda coloured: f"{{{coloured[1]}}}" if coloured[1] is not None else "", text)
        if not looks + colours:
            break
    text = _SWITCH.sub(" ", text)
    bold = _BOLD.fullmatch(text.strip(" ."))
    return (bold[2] if bold else text).replace("`", "").replace('"', "")


FUNCTIONS = frozenset(
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh "
    "arctanh ln log lg exp sqrt".split()
)
"""Which stand without a backslash in what people type."""
_CALLED = {"min": r"\min", "max": r"\max", "gcd": r"\gcd", "det": r"\det", "lcm": r"\operatorname{lcm}"}
"""The same, but only before a bracket: 5 min is a time."""
_LETTERS = frozenset(
    "alpha beta gamma delta epsilon theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega".split()
)
_OTHERS = {"inf": r"\infty", "infinity": r"\infty", "infty": r"\infty", "oo": r"\infty", "arsinh": r"\arcsinh",
           "asin": r"\arcsin", "acos": r"\arccos", "atan": r"\arctan", "ctg": r"\cot", "tg": r"\tan",
           "degrees": r"^\circ", "degree": r"^\circ", "deg": r"^\circ"}  # fmt: skip
_MAGNITUDES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_COUNTS = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split(),
        range(21),
        strict=True,
    )
)
_RUN = re.compile(r"\\(?:text|begin|end|mathbb|mathcal|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]{2,}(?:'[a-z]+)?")
_SHORT_WORDS = frozenset(
    "am pm no or and yes odd red one two six ten not nor of the is are in at to by per day if for an as it on up "
    "all any few own new old off out far but hot dry wet low big men son boy cat dog cow hen egg ear day way pen "
    "cup box bag car toy leg arm pie fox bus cm mm km kg mg ml ft mi yd lb oz hr hrs min mins sec secs wk yr yrs "
    "mph kmh kph rad cal mol Hz kHz Pa kPa kJ kW mW nm pm kN mN mV kV eV keV MeV GeV kcal sq cu inch foot feet "
    "gal usd th st nd rd mod Mon Tue Wed Thu Fri Sat Sun Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec East "
    "West".split()
)
"""Words of two and three letters: another such run of letters is a product of names."""


def is_word(run: str) -> bool:
    """Whether letters that stand together are a word and no product of names.

    >>> [run for run in ("apples", "abcd", "xyz", "odd", "ABCD", "Evelyn", "mgh", "Cat") if is_word(run)]
    ['apples', 'odd', 'Evelyn', 'Cat']
    """
    if run in _SHORT_WORDS or run in ("AM", "PM") or (run.istitle() and run.lower() in _SHORT_WORDS):
        return True
    if len(run) > 2 and run.lower() in DECIDING:
        return True
    if len(run) < 3 or run.isupper() or not re.search("[aeiouyAEIOUY]", run):
        return False
    lower = run.lower()
    if (
        "".join(sorted(lower)) == lower
        and len(set(lower)) == len(lower)
        and ord(lower[-1]) - ord(lower[0]) == len(lower) - 1
    ):
        return False
    return len(run) >= 4 or (run[0].isupper() and run[1:].islower())


def _named(run: re.Match) -> str:
    """Letters that stand together, as a function, a sign, a word or a product of names; commands as they stand."""
    letters = run.group()
    if letters[0] == "\\":
        return letters
    if letters == "lg":
        return r"\log_{10} "
    if letters in FUNCTIONS or letters in _LETTERS:
        return f"\\{letters} "
    if letters in _OTHERS:
        return f"{_OTHERS[letters]} "
    after = run.string[run.end() : run.end() + 1]
    if letters in _CALLED and after == "(":
        return _CALLED[letters]
    return rf" \text{{{letters}}} " if after != "_" and is_word(letters) else letters


def _unwrapped(wrapper: re.Match) -> str:
    r"""What stands in \text{...}: words keep it, one around each; numbers and signs between them go without."""
    inside = (wrapper[1] or "").strip()
    if inside in ("e", "i", "d"):
        return f"{inside} "
    called = wrapper.string[wrapper.end() : wrapper.end() + 1] in ("(", "{")
    if inside in FUNCTIONS or (inside in _CALLED and called):
        return f"\\{inside} " if inside in FUNCTIONS else _CALLED[inside]
    if wrapper.group().startswith(r"\text{") and re.fullmatch("[A-Za-z]+", wrapper[1]):
        return wrapper.group()
    # sq. in. has words like any other; "B. 7" is a choice.
    inside = re.sub(r"(?<!^[A-J])(?<=[A-Za-z])\.(?![0-9])", " ", inside)
    return (
        " "
        + re.sub(
            r"(?<![\\A-Za-z])[A-Za-z]+(?:'[a-z]+)?|[^\x00-\x7f]+", lambda word: rf"\text{{{word.group()}}}", inside
        )
        + " "
    )


_REPEATING = re.compile(
    r"(?<![0-9])([0-9]*)\.([0-9]*)(?:\\(?:overline|bar|dot)\s*\{([0-9]+)\}|\\(?:bar|dot)\s*([0-9])|\(([0-9]+)\)(?![0-9(]))"
)
_DOTTED = re.compile(r"(?<![0-9])([0-9]*)\.([0-9]{3,})\s*\.\.\.")


def _repeating(decimal: re.Match) -> str:
    whole, fixed, block = decimal[1] or "0", decimal[2], decimal[3] or decimal[4] or decimal[5]
    if len(block) > MAX_REPEATS:
        return decimal.group()
    return fraction(repeating(whole, fixed, block))


def repeating(whole: str, fixed: str, block: str) -> Fraction:
    """The fraction that whole.fixed(block)(block)... is.

    >>> repeating("0", "", "3"), repeating("0", "1", "6")
    (Fraction(1, 3), Fraction(1, 6))
    """
    nines = (10 ** len(block) - 1) * 10 ** len(fixed)
    return Fraction(int(whole + fixed + block) - int(whole + fixed), nines)


def _dotted(decimal: re.Match) -> str:
    """Digits and dots as the fraction that they are, if their last digits repeat; as they stand where they do not."""
    digits = decimal[2]
    for size in range(1, min(MAX_REPEATS, len(digits) // 2) + 1):
        block = digits[-size:]
        times = 3 if size == 1 else 2
        if len(digits) >= times * size and digits.endswith(block * times):
            fixed = digits
            while fixed.endswith(block):
                fixed = fixed[:-size]
            return fraction(repeating(decimal[1] or "0", fixed, block))
    return decimal.group()


_MIXED = re.compile(
    r"(?<![\w.^\\}_])(?<![\w}] )(?P<whole>[0-9]+)(?:\s+(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)(?![\w.^])"
    r"|\s*\\frac\{(?P<ltop>[0-9]+)\}\{(?P<lbottom>[0-9]+)\}(?!\s*\^))"
)


def _mixed(number: re.Match) -> str:
    r"""2\frac{1}{2} as one fraction; as it stands where the fraction is no proper one."""
    top, bottom = int(number["top"] or number["ltop"]), int(number["bottom"] or number["lbottom"])
    if not 0 < top < bottom:
        return number.group()
    return rf"\frac{{{int(number['whole']) * bottom + top}}}{{{bottom}}}"


_MAGNITUDE = re.compile(
    rf"(?:(?P<value>[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)|\\frac\{{(?P<top>[0-9]+)\}}\{{(?P<bottom>[0-9]+)\}})"
    rf"\s*\\text\{{(?P<times>{'|'.join(_MAGNITUDES)})s?\}}",
    re.IGNORECASE,
)


def _magnified(number: re.Match) -> str:
    """3.2 million in digits."""
    times = 10 ** _MAGNITUDES[number["times"].lower()]
    if number["top"]:
        return rf"\frac{{{int(number['top']) * times}}}{{{number['bottom']}}}"
    value = Fraction(number["value"].replace(",", "")) * times
    return str(value.numerator) if value.denominator == 1 else str(float(value))


_HALF_DAY = re.compile(r"(?<![A-Za-z])([ap])\.\s?m\b\.?", re.IGNORECASE)
_COUNT = re.compile(rf"\\text\{{({'|'.join(_COUNTS)})\}}", re.IGNORECASE)
_ORDINAL = re.compile(
    r"(?<=[0-9])\s*(?:\^\s*\\text\{(?:st|nd|rd|th)\}|\^\s*\{\s*\\text\{(?:st|nd|rd|th)\}\s*\}|\\text\{(?:st|nd|rd|th)\})"
)
_DEGREES = re.compile(
    r"(?:\{\s*\})?\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])|\\text\{(?:degrees?|deg)\}"
)
_MONEY = re.compile(
    r"(?:\\text\{US\}|US)?\s*(\\\$|[€£¥])\s*(-?\s*(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+|\\frac\{[0-9]+\}\{[0-9]+\}))"
)
_AMOUNT = re.compile(r"((?:\\\$|[€£¥])\s*[0-9][0-9,.]*)\s*(?:\\text\{\s*)?([kKmMB])(?:\}|(?![A-Za-z]))")
_THOUSAND_DOLLARS = {"k": "thousand", "K": "thousand", "m": "million", "M": "million", "B": "billion"}
"""Behind an amount of money alone: elsewhere K are kelvin and m metres."""
_CURRENCY = {r"\$": r"\text{dollars}", "€": r"\text{euros}", "£": r"\text{sterling}", "¥": r"\text{yen}"}
_SAME = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\leq(?:slant|q)?(?![A-Za-z])|<=|=<"), r"\\le "),
    (re.compile(r"\\geq(?:slant|q)?(?![A-Za-z])|>=|=>"), r"\\ge "),
    (re.compile(r"\\neq(?![A-Za-z])|!=|\\not\s*="), r"\\ne "),
    (re.compile(r"\\(?:long)?rightarrow(?![A-Za-z])"), r"\\to "),
    (re.compile(r"\\(?:therefore|because|implies|iff)(?![A-Za-z])"), " "),
    (re.compile(r":="), "="),
    (re.compile(r"\\(?:ldots|dots|cdots|dotsc|dotsb)(?![A-Za-z])"), "..."),
    (re.compile(r"\\p?mod(?![A-Za-z])\s*(?:\{([^{}]*)\}|([0-9A-Za-z]+))"), r"\\pmod{\1\2}"),
    (re.compile(r"\\(pm|mp|cdot|times|div|le|ge|ne|approx)\s*\{([^{}]*)\}"), r"\\\1 \2"),
    # Digits between dots repeat, as they are written in Chinese.
    (re.compile(r"\\dot\s*\{?([0-9])\}?([0-9]*)\\dot\s*\{?([0-9])\}?"), r"\\overline{\1\2\3}"),
    (re.compile(r"\\mathbb\s*([A-Z])"), r"\\mathbb{\1}"),
    (re.compile(r"\\(?:text|math)rm\s+([A-Za-z])(?![A-Za-z])"), r"\1"),
    (re.compile(r"\\binom\s*([0-9A-Za-z])\s*([0-9A-Za-z])(?![A-Za-z])"), r"\\binom{\1}{\2}"),
    (re.compile(r"\\(?:begin|end)\{(?:aligned|align\*?|gathered|split|equation\*?)\}"), " "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"\\lg(?![A-Za-z])"), r"\\log_{10}"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\lbrack(?![A-Za-z])"), "["),
    (re.compile(r"\\rbrack(?![A-Za-z])"), "]"),
    (re.compile(r"\\(?:[lr]?vert|mid)(?![A-Za-z])"), "|"),
    (re.compile(r"\\ast(?![A-Za-z])"), "*"),
    (re.compile(r"\\(?:wedge)(?![A-Za-z])"), r"\\land"),
    (re.compile(r"\\(?:vee)(?![A-Za-z])"), r"\\lor"),
    (re.compile(r"\\(?:thickapprox|simeq|doteq)(?![A-Za-z])"), r"\\approx"),
    (re.compile(r"\^\s*(?:\{\s*((?:\\prime\s*)+)\}|\\prime(?![A-Za-z]))|\\prime(?![A-Za-z])"),
     lambda primes: "'" * max(1, primes.group().count("prime"))),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\colon(?![A-Za-z])|(?<![A-Za-z])\{\s*:\s*\}"), ":"),
    (re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<!\\)%"), r"\\%"),
]  # fmt: skip
_GROUP_ROOT = re.compile(r"\\sqrt\s*\(((?:[^()]|\([^()]*\))*)\)")
# One sign, or one command that takes no argument: \frac\pi4.
_SIGN = r"([0-9A-Za-z]|\\[A-Za-z]+(?![A-Za-z{\[]))"
_DIGIT_ROOT = re.compile(rf"\\sqrt\s*(\[[^\[\]]*\])?\s*{_SIGN}")
_FRACTION = re.compile(rf"\\frac\s*(?:{_ARGUMENT}|{_SIGN})\s*(?:{_ARGUMENT}|{_SIGN})")
_POWER = re.compile(r"\^\s*(?:\(((?:[^()]|\([^()]*\))*)\)|([+-]?[0-9]+\.[0-9]+|-[0-9]+))")
_SCRIPT = re.compile(r"\s*([_^])\s*")


def _braced(halves: re.Match) -> str:
    """A fraction with braces around both halves, and those in it."""
    top, bottom = (
        halves[at + 1] if halves[at] is None else _FRACTION.sub(_braced, halves[at].strip()) for at in (1, 3)
    )
    return rf"\frac{{{top}}}{{{bottom}}}"


def _short_script(script: re.Match) -> str:
    """One sign of an index or exponent without braces, unless a digit comes after it."""
    return f"{script[1]}{script[2]}" if script[1] else f"{script[3]}{{{script[4]}}}"


_LONE_BRACES = re.compile(r"(?<![\\A-Za-z0-9_^}\]])\{\s*([^{}]*)\}(?!\s*\{)")
_DOUBLE_BRACES = re.compile(r"(?<!\\)\{\s*\{((?:[^{}\\]|\\[^{}])*)\}\s*\}")
_HALF = re.compile(r"(?<![\w.}^)/])([0-9]+)/([0-9]+)(?= [A-Za-z\\(])")


_ALL = re.compile(
    r"^\s*\\text\{all\}\s*\\text\{(real|integer|rational)s?\}\s*(?:\\text\{(?:numbers|values)\})?\s*$", re.IGNORECASE
)
# Where commas may separate, 1,080 may be two answers.
_LISTS = re.compile(r", |[(\[]|\\\{|,(?![0-9]{3}(?![0-9]))|(?<![0-9]),")
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")


def _closing(text: str, start: int) -> int:
    """Where the brace that opens at `start` closes; -1 where it does not."""
    depth = 0
    for token in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return token.start()
    return -1


@lru_cache(maxsize=4096)
def written(text: str) -> str:
    r"""An answer in the one way of writing that this module describes; of one that is written so already, itself.

    >>> written(r"$\mathbf{1 \tfrac14}$"), written("2 sqrt(3)"), written(r"5\text{ or 6}")
    ('\\frac{5}{4}', '2 \\sqrt{3}', '5 \\text{or} 6')
    >>> written(r"0.1\overline{6}"), written("3.2 million dollars"), written(r"90^{\circ}"), written("（1，2）")
    ('\\frac{1}{6}', '3200000 \\text{dollars}', '90^\\circ', '(1,2)')
    """
    # Of "\ " at the end blanks may be gone.
    text = re.sub(r"\\+\s*$", "", in_ascii(text))
    if r"\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
        text = re.sub(r"\\[()\[\]]", " ", text)
    if text.count("$") == 1 and re.match(r"\s*\$(?=[-0-9.])", text):
        text = "\\" + text.lstrip()
    text = re.sub(r"(?<!\\)\$", " ", text)
    text = _GROUPS.sub(lambda number: re.sub(r"[^0-9]", "", number.group()), text).replace(r"\!", "")
    text = _SIZES.sub(" ", _plain_looks(text))
    text = _SPACES.sub(" ", text)
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    text = _DOUBLE_BRACES.sub(r"{\1}", text)
    text = _HALF_DAY.sub(r"\1m", text)
    for _ in range(2):
        text = _WORDS.sub(_unwrapped, text)
    text = re.sub(r"(\\[A-Za-z]+)\s+(?=\{)", r"\1", _RUN.sub(_named, text))
    if r"\text" in text:
        if not re.search("[0-9]", text):
            text = _COUNT.sub(lambda word: f" {_COUNTS[word[1].lower()]} ", text)
        text = _ORDINAL.sub("", text)
        text = re.sub(r"\(?\s*\\text\{mod\}\s*([0-9A-Za-z]+)\s*\)?", r" \\pmod{\1}", text)
        text = _ALL.sub(lambda numbers: rf"\mathbb{{{numbers[1][0].upper().replace('I', 'Z')}}}", text)
        text = re.sub(r"\\text\{per\}\s*\\text\{cent\}", r"\\text{percent}", text)
    text = _DEGREES.sub(r"^\\circ ", text)
    text = _DIGIT_ROOT.sub(r"\\sqrt\1{\2}", _GROUP_ROOT.sub(r"\\sqrt{\1}", text))
    text = _FRACTION.sub(_braced, text)
    text = _DOTTED.sub(_dotted, _REPEATING.sub(_repeating, text))
    for _ in range(2):
        text = _LONE_BRACES.sub(r" \1 ", text)
    text = text.strip()
    while text.startswith("{") and _closing(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    text = _MIXED.sub(_mixed, re.sub(r"\s+", " ", text))
    text = _BLANKS.sub(lambda number: number.group().replace(" ", ""), text)
    text = _HALF.sub(r"\\frac{\1}{\2}", text)
    text = _AMOUNT.sub(lambda money: rf"{money[1]} \text{{{_THOUSAND_DOLLARS[money[2]]}}}", text)
    text = _MAGNITUDE.sub(_magnified, text)
    text = _MONEY.sub(lambda money: f"{money[2]} {_CURRENCY[money[1]]} ", text).replace(r"\$", r"\text{dollars}")
    text = _POWER.sub(lambda power: f"^{{{power[1] if power[1] is not None else power[2]}}}", text)
    # A digit would seem to belong to it: \log_{2}5 is no \log_{25}.
    text = re.sub(r"([_^])\{ ?(\w) ?\}(?! ?[0-9])|([_^])([0-9])(?= [0-9])", _short_script, _SCRIPT.sub(r"\1", text))
    text = re.sub(r"\s+", " ", text).strip()
    # A full stop ends a sentence; a backslash before it would belong to it.
    text = re.sub(r"(?:(?<![\\.])[.]|(?<!\\)[;,\s])+$", "", text)
    if "," in text and not _LISTS.search(text):
        text = _THOUSANDS.sub(lambda number: number.group().replace(",", ""), text)
    return re.sub(r"(?<=[(\[{]) | (?=[)\]},])", "", text)
