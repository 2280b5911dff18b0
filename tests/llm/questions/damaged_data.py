"""Data files, whole and damaged in every way that we could think of, by a seed; and what a second reader finds."""

import gzip
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
Pairs = list[tuple[str, str]]

SYSTEM = {"role": "system", "content": "You solve math."}


@dataclass(frozen=True)
class Damaged:
    """A file, and what has to come of it."""

    path: Path
    damage: str
    accepted: bool | None
    """Whether it must be accepted; None where the second reader decides."""


def user(text: Any) -> Row:
    return {"role": "user", "content": text}


# -- whole rows --


def answer(i: int, rng: random.Random) -> Any:
    return rng.choice([str(i), i, i + 0.5, f"So.\n#### {i:,}", [f"{i}"], rf"\frac{{{i}}}{{7}}", 10**9 * i, float(i)])


def question(i: int, rng: random.Random) -> str:
    return f"{i}+{rng.randrange(99)}" + rng.choice(
        ["?", " é ≤ 数?", "\u2028?", ' "quoted", {x} \\\\?', "\n\nWhich?", "😀"]
    )


FORMS: dict[str, Callable[[str], Any]] = {
    "text": lambda text: text,
    "blank around": lambda text: f" \n{text}\t",
    "conversation": lambda text: [user(text)],
    "with system": lambda text: [SYSTEM, user(text)],
    "conversation as JSON": lambda text: json.dumps([SYSTEM, user(text)]),
}


def whole(rng: random.Random) -> list[Row]:
    column = rng.choice(["question", "problem", "prompt"])
    form = FORMS[rng.choice(list(FORMS))]
    rows = [{column: form(question(i, rng)), "answer": answer(i, rng)} for i in range(1, rng.randrange(6, 12))]
    if rng.random() < 0.3:
        rows = [{column: row[column], "reward_model": {"ground_truth": row["answer"]}} for row in rows]
    return [{**row, "source": "x", "score": math.nan} if rng.random() < 0.3 else row for row in rows]


# -- damage of a row: (row, its column of questions) -> whatever stands there then --


def asking(value: Any) -> Callable[[Row, str], Row]:
    return lambda row, column: {**row, column: value}


def answering(value: Any) -> Callable[[Row, str], Row]:
    return lambda row, _: {**row, ("answer" if "answer" in row else "reward_model"): value}


HARMLESS: dict[str, Callable[[Row, str], Any]] = {
    "nothing": lambda row, _: row,
    "another column": lambda row, _: {**row, "nested": {"a": [None, {"b": 1e300}]}},
    "a system message": asking([SYSTEM, user("99+99?")]),
    "keys that hold nothing": asking([{**user("99+99?"), "tool_calls": None, "images": []}]),
}
FATAL: dict[str, Callable[[Row, str], Any]] = {
    **{f"question {json.dumps(v)[:40]}": asking(v) for v in (
        None, "", " \n", 7, 1.5, True, [], ["1+1?"], [[]], {}, {"text": "1+1?"}, "\ud800 1+1?", user("1+1?"), [None],
        [user("1+1?"), {"role": "assistant", "content": "2"}], [SYSTEM], [{"role": "user"}], [{"content": "1+1?"}],
        [user(None)], [user("")], [user(["1+1?"])], [user([{"type": "text", "text": "1+1?"}])], [user(7)],
        [{"role": "human", "content": "1+1?"}], [{"role": 1, "content": "1+1?"}], [{"from": "human", "value": "1+1?"}],
        [user("1+1?"), SYSTEM, user("1+1?")], [user("\udfff")], [user("1+1?"), "more"], [user("a"), user("1+1?")],
        [{**user("1+1?"), "images": ["a.png"]}], "[{'role': 'user', 'content': '1+1?'}]", '[{"role": "user", "con',
    )},
    **{f"answer {str(v)[:40]}": answering(v) for v in (
        None, "", "  ", "####", "so ####  ", True, False, [], ["1", "2"], [None], {}, {"value": 1}, [[1]], math.nan,
        math.inf, -math.inf, "\udc00",
    )},
    "no question": lambda row, column: {k: v for k, v in row.items() if k != column},
    "no answer": lambda row, _: {k: v for k, v in row.items() if k not in ("answer", "reward_model")},
    "a list": lambda *_: [1, 2],
    "a text": lambda *_: "1+1?",
    "null": lambda *_: None,
    "a number": lambda *_: 5,
}  # fmt: skip


# -- damage of a text file's bytes: True and False say what must come of it, None leaves it to the second reader --


def flipped(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]


BYTES: dict[str, tuple[bool | None, Callable[[bytes, random.Random], bytes]]] = {
    "a byte order mark": (True, lambda raw, _: b"\xef\xbb\xbf" + raw),
    "CRLF": (True, lambda raw, _: raw.replace(b"\n", b"\r\n")),
    "blank lines": (True, lambda raw, _: b"\n  \n" + raw.replace(b"\n", b"\n\n")),
    "UTF-16": (False, lambda raw, _: raw.decode().encode("utf-16")),
    "UTF-32": (False, lambda raw, _: raw.decode().encode("utf-32-le")),
    "Latin-1": (False, lambda raw, _: raw.replace(b"+", "é".encode("latin-1"), 1)),
    "gzip": (False, lambda raw, _: gzip.compress(raw, mtime=0)),
    "empty": (False, lambda *_: b""),
    "white space": (False, lambda *_: b" \n\n\t"),
    "a tail of zeros": (False, lambda raw, _: raw + bytes(64)),
    "a parquet file": (False, lambda raw, _: b"PAR1" + raw + b"PAR1"),
    "a comma too many": (False, lambda raw, _: b",}".join(raw.rsplit(b"}", 1))),
    "single quotes": (False, lambda raw, _: raw.replace(b'"', b"'")),
    "a number of 5000 digits": (False, lambda raw, _: raw.replace(b"{", b'{"more": ' + b"9" * 5000 + b",", 1)),
    "a key twice": (False, lambda raw, _: raw.replace(b"{", b'{"answer": "1", "answer": "2",', 1)),
    "csv": (False, lambda *_: b'question,answer\n"1+""1?",2\n"torn'),
    "deep nesting": (False, lambda raw, _: b'{"question": ' + b"[" * 50_000 + b"\n" + raw),
    "cut off": (None, lambda raw, rng: raw[: rng.randrange(len(raw))]),
    "a bit turned": (None, flipped),
    "bits turned": (None, lambda raw, rng: flipped(flipped(flipped(raw, rng), rng), rng)),
    "a stretch lost": (None, lambda raw, rng: raw[: (at := rng.randrange(len(raw)))] + raw[at + rng.randint(1, 40) :]),
}  # fmt: skip
TABLE_BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut off": lambda raw, rng: raw[: rng.randrange(len(raw))],
    "its start lost": lambda raw, rng: raw[rng.randrange(1, len(raw)) :],
    "another magic": lambda raw, _: raw[:-4] + b"XXXX",
    "JSON": lambda *_: b'{"question": "1+1?", "answer": "2"}\n',
}


def damaged(folder: Path, seed: int) -> Damaged:
    """A file of the seed."""
    rng = random.Random(seed)
    kind = rng.choice(["row", "row", "bytes", "bytes", "table", "repeated", "name"])
    rows: list[Any] = whole(rng)
    suffix = rng.choice([".jsonl", ".json"])
    path = folder / f"q{suffix}"
    column = next(iter(rows[0]))
    if kind == "table":
        return _table(folder, rows, rng)
    if kind == "repeated":
        rows = [{**rows[0], **({"answer": str(i)} if rng.random() < 0.5 else {})} for i in range(20)] + rows
        path.write_bytes(_text(rows, suffix))
        return Damaged(path, "one question in most rows", False)
    if kind == "name":
        path = folder / f"q{rng.choice(['.csv', '.tsv', '.txt', '.jsonl.gz', ''])}"
        path.write_bytes(b'question,answer\n"a ""b"" ,\n",2\n' + _text(rows, suffix))
        return Damaged(path, "another suffix", False)
    if kind == "row":
        accepted = rng.random() < 0.15
        damages = HARMLESS if accepted else FATAL
        name = rng.choice(list(damages))
        at = rng.randrange(len(rows))
        rows[at] = damages[name](rows[at], column)
        path.write_bytes(_text(rows, suffix))
        return Damaged(path, name, accepted)
    name = rng.choice(list(BYTES))
    expected, damage = BYTES[name]
    path.write_bytes(damage(_text(rows, suffix), rng))
    return Damaged(path, name, expected)


def _text(rows: list[Any], suffix: str) -> bytes:
    if suffix == ".json":
        return json.dumps(rows, indent=1).encode()
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _table(folder: Path, rows: list[Row], rng: random.Random) -> Damaged:
    path = folder / "q.parquet"
    column = next(iter(rows[0]))
    table = pa.table(
        {column: [row[column] for row in rows], "answer": pa.array([i + 0.1 for i in range(len(rows))], pa.float32())}
    )
    name = rng.choice([*TABLE_BYTES, "nothing", "null"])
    if name == "null":
        holes = [None if rng.random() < 0.5 else value for value in table[column].to_pylist()]
        holes[rng.randrange(len(holes))] = None
        table = table.set_column(0, column, pa.array(holes, table[column].type))
    pq.write_table(table, path)
    if name in TABLE_BYTES:
        path.write_bytes(TABLE_BYTES[name](path.read_bytes(), rng))
    return Damaged(path, f"table: {name}", name == "nothing")


# -- the second reader: what a file asks, by other means; None where it is not to be understood --


def found(path: Path) -> Pairs | None:
    try:
        if path.suffix == ".parquet":
            rows = [{**row, "answer": round(row["answer"], 3)} for row in pq.read_table(path).to_pylist()]
        else:
            text = path.read_bytes().decode("utf-8-sig")
            lines = [line for line in text.split("\n") if line.strip()]
            rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in lines]
        pairs = [(_asked(row), _answered(row)) for row in rows]
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError, RecursionError):
        return None
    for text in (text for pair in pairs for text in pair):
        if not text or any("\ud800" <= c <= "\udfff" for c in text):
            return None
    return list(dict.fromkeys(pairs)) or None


def _asked(row: Row) -> str:
    (column,) = [name for name in ("question", "problem", "prompt") if name in row]
    value = row[column]
    if isinstance(value, str) and value.startswith("[{"):
        value = json.loads(value)
    if isinstance(value, str):
        return value.strip()
    *before, last = value
    assert [one["role"] for one in before] in ([], ["system"]) and last["role"] == "user"
    return last["content"].strip()


def _answered(row: Row) -> str:
    value = row["answer"] if "answer" in row else row["reward_model"]["ground_truth"]
    if isinstance(value, list):
        (value,) = value
    if isinstance(value, str):
        return value.split("####")[-1].strip()
    assert isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    text = f"{Decimal(repr(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
