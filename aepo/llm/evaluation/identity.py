"""`settings.json`: which evaluation the samples of a folder are of. Another one is refused there; n may grow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aepo import atomic
from aepo.llm.evaluation.options import Measurement, Options
from aepo.llm.evaluation.prompting import Manner
from aepo.llm.settings import SettingsError

FILE = "settings.json"
OPTIONS = {"weights": "model", "questions": "data"}
"""What a person typed behind what is compared, where it is called otherwise."""


def identity(
    options: Options, manner: Manner, *, weights: str, end_tokens: Sequence[int], questions: Mapping[str, str]
) -> dict[str, Any]:
    """All that shapes a sample but its number: two evaluations with equal ones may share a folder.

    Args:
        options: as typed.
        manner: of asking.
        weights: fingerprint of the model.
        end_tokens: those beside the tokenizer's own.
        questions: fingerprint of each set's prompts and references.
    """
    return {
        "weights": weights,
        "template": manner.template,
        # What most evaluations have none of is left out, so that those begun before there could be any go on.
        **{name: value for name in ("system_prompt", "instruction") if (value := getattr(manner, name)) is not None},
        **({"end_tokens": list(end_tokens)} if end_tokens else {}),
        **({"stop": list(manner.stop)} if manner.stop else {}),
        **({"reward": judge} if options.own_file is not None and (judge := _judge(options, manner)) else {}),
        **{name: getattr(options, name) for name in ("engine", "dtype", "seed", "rows", "rows_at_once")},
        # Scores are rounded by the shape of the pass that they come from.
        "micro_batch_tokens": options.micro_batch_tokens,
        "questions": dict(questions),
        **{
            name: {p.name: getattr(p, name) for p in options.measurements}
            for name in ("temperature", "top_p", "max_tokens")
        },
    }


def _judge(options: Options, manner: Manner) -> str | None:
    """The reward function that judges a file of one's own; None for aepo's verifier."""
    return options.reward or (None if manner.trained is None else manner.trained.reward.function)


def admit(out: Path, wanted: Mapping[str, Any], measurements: Sequence[Measurement]) -> None:
    """Leave or find `settings.json`; by one process.

    Args:
        out: folder of the evaluation.
        wanted: `identity` of this one.
        measurements: how often each set is sampled.

    Raises:
        SettingsError: the folder holds samples of another evaluation, or its settings cannot be read.
    """
    path = out / FILE
    held = any(samples.stat().st_size for samples in (out / "samples").glob("*.jsonl"))
    now = {p.name: p.n for p in measurements}
    if held and path.exists():
        saved = _read(path)
        differ = list(_differences(saved["evaluation"], wanted))
        if differ:
            raise SettingsError(
                f"--out={out} holds samples of another evaluation: {'; '.join(differ)}; undo this, or choose another "
                "--out"
            )
        asked = {name: list(saved["n"][name]) for name in now}
        for name, n in now.items():
            if n < asked[name][-1]:
                raise SettingsError(
                    f"--samples={n}: --out={out} holds {asked[name][-1]} samples per problem of {name}, and they may "
                    "only grow; raise it, or choose another --out"
                )
            if n > asked[name][-1]:
                asked[name].append(n)
    else:
        if held:
            raise SettingsError(
                f"--out={out} holds samples and no {FILE}, which would say what they are of; choose another --out"
            )
        asked = {name: [n] for name, n in now.items()}
    atomic.write_text(path, json.dumps({"evaluation": wanted, "n": asked}, indent=1), durable=True)


def stages(out: Path) -> dict[str, list[int]]:
    """By the name of each measurement the numbers of samples asked for so far, ascending; the last is its n."""
    return {name: list(numbers) for name, numbers in _read(out / FILE)["n"].items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = json.loads(path.read_text())
        if not isinstance(saved["evaluation"], dict):
            raise TypeError("evaluation is no object")
        if not all(n and list(map(int, n)) == sorted(set(n)) for n in saved["n"].values()):
            raise ValueError("n is not ascending")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError(
            f"{path} is unreadable ({type(error).__name__}: {error}); restore it, or choose another --out"
        ) from error
    return saved


def _differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    sets = [set(found.get("temperature") or {}) for found in (saved, wanted)]
    if sets[0] != sets[1]:
        # Whatever else differs follows from it.
        was, now = (", ".join(sorted(names)) for names in sets)
        yield f"--suite and --mode were {was}, now {now}"
        return
    for key in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(key), wanted.get(key)
        option = f"--{OPTIONS.get(key, key).replace('_', '-')}"
        if key == "end_tokens" and old != new:
            was, now = (", ".join(map(str, ids or ())) or "none" for ids in (old, new))
            yield f"{option}: the ids that end a response beside the tokenizer's own were {was}, now {now}"
        elif key in OPTIONS and old != new:
            which = [name for name in old if old[name] != new.get(name)] if isinstance(old, dict) else []
            yield f"{option} has other {key}{' in ' + ', '.join(which) if which else ''}"
        elif isinstance(old, dict) and isinstance(new, dict):
            # All sets have mostly changed alike.
            changes = {(old[name], new[name]) for name in old if old[name] != new[name]}
            yield from (f"{option} was {a}, now {b}" for a, b in sorted(changes))
        elif old != new:
            yield f"{option} was {old}, now {new}"
