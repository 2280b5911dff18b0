"""Where does a step on DAPO-17k prompts go, and how much of it is the trainer itself?

A random Qwen3 of 9.5 M parameters over bytes, 8 prompts x 8 responses of up to 96 tokens and AEPO's second branch,
two ranks under the deepspeed launcher, once with each engine that is installed. Everything outside the model's
forward and backward passes, the optimizer and the engine counts as overhead: data, grading, gathering, control,
assembly, packing of micro-batches, metrics, files; what ranks wait for each other is listed apart and counted too.

    python benchmarks/dapo_step.py ../shared/data/math/dapo_math_17k.parquet

Random bytes state no answer, so a coin rewards half of the responses: without rewards there is nothing to update. The
verifier's time is measured apart, on each step's number of responses with right, equivalent and wrong answers, and is
added to the overhead.
"""

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "dapo_step.json"
RANKS, STEPS, WARM_UP = 2, 4, 1
SETTINGS = (
    "--reward.function=dapo_step:coin",
    "--model.hidden_size=320", "--model.layers=8", "--model.heads=5", "--model.kv_heads=1",
    "--model.intermediate_size=960", "--train.prompts_per_step=8", "--train.minibatches=4", "--train.lr=1e-4",
    "--rollout.group_size=8", "--rollout.max_response_tokens=96", "--controller.sees=previous", "--method.name=aepo",
    f"--train.steps={STEPS}", "--train.zero_stage=2", "--checkpoint.every=0", "--evaluation.samples=0",
    "--data.max_prompt_tokens=768",
)  # fmt: skip


def coin(response: str, answer: str) -> float:
    """1 for about half of the responses."""
    return float(zlib.crc32(response.encode()) % 2)


def timed(seconds: Counter, owner: Any, name: str, part: str) -> None:
    """Count what `owner.name` takes under `part`."""
    inner: Callable = getattr(owner, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - began

    setattr(owner, name, measured)


def worker() -> None:
    """One rank: the real `run`, with clocks around model and engine."""
    from aepo.llm import train
    from aepo.llm.engines.embedded import EmbeddedEngine
    from aepo.llm.engines.vllm_engine import VLLMEngine
    from aepo.llm.policy import deepspeed_stepper, response_stats
    from aepo.llm.processes import ranks
    from aepo.llm.settings import parse

    settings = parse(sys.argv[1:]).settings
    seconds: Counter = Counter()
    for engine in (EmbeddedEngine, VLLMEngine):
        for name in ("load", "sample", "rest"):
            timed(seconds, engine, name, "engine")
    timed(seconds, response_stats.ResponseStats, "forward", "model")
    for name in ("backward", "step"):
        timed(seconds, deepspeed_stepper.DeepSpeedStepper, name, "model")
    for name in ("gather", "total", "largest"):
        timed(seconds, ranks, name, "waiting")
    steps, began = [], time.perf_counter()

    def on_step(step: train.Step) -> None:
        nonlocal began
        now = time.perf_counter()
        rows = [step.main] if step.second is None else [step.main, step.second]
        steps.append(
            {
                "seconds": now - began,
                **{part: seconds[part] for part in ("engine", "model", "waiting")},
                "generated_tokens": int(sum(float(r.mask.sum()) for r in rows)),
                "responses": sum(len(r.prompt) for r in rows),
                "phases": {k: v for k, v in step.metrics.items() if k.startswith("time/")},
            }
        )
        seconds.clear()
        began = time.perf_counter()

    train.run(settings, on_step=on_step)
    out = Path(settings.out)
    (out / f"rank{os.environ['RANK']}.json").write_text(json.dumps(steps))


def grading_seconds(data: Path, responses: int) -> float:
    """For one rank's responses with the sets' own answers: a third right, a third in another form, a third wrong."""
    from aepo.llm.questions.problems import load_problems
    from aepo.llm.questions.task import grading_pool
    from aepo.llm.settings import RewardSettings

    answers = [problem.answer for problem in load_problems(str(data))[:responses]]
    forms = (lambda a: a, lambda a: rf"\frac{{2({a})}}{{2}}", lambda a: a + "1")
    items = [("words " * 20 + rf"\boxed{{{forms[i % 3](a)}}}", a) for i, a in enumerate(answers)]
    with grading_pool(RewardSettings()) as pool:
        pool.grade(items[:64])
        began = time.perf_counter()
        pool.grade(items)
        return time.perf_counter() - began


def launched(engine: str, data: Path, out: Path) -> list[list[dict]]:
    """Steps of each rank, without the first."""
    command = [
        str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", str(RANKS), __file__, f"--data.train={data}",
        *SETTINGS, f"--rollout.engine={engine}", f"--out={out}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return [json.loads((out / f"rank{rank}.json").read_text())[WARM_UP:] for rank in range(RANKS)]


def summary(ranks: list[list[dict]], grading: float) -> dict[str, Any]:
    """Means over steps and ranks, in seconds."""
    every = [step for rank in ranks for step in rank]

    def mean(value: Callable[[dict], float]) -> float:
        return round(statistics.mean(value(step) for step in every), 4)

    overhead = [(step["seconds"] - step["engine"] - step["model"] + grading) / step["seconds"] for step in every]
    waiting = [step["waiting"] / step["seconds"] for step in every]
    own = [a - b for a, b in zip(overhead, waiting, strict=True)]
    tokens = [sum(rank[i]["generated_tokens"] for rank in ranks[:1]) for i in range(len(ranks[0]))]
    generate = [max(rank[i]["phases"]["time/generate"] for rank in ranks) for i in range(len(ranks[0]))]
    return {
        "step_seconds": mean(lambda s: s["seconds"]),
        "phases_seconds": {
            name.removeprefix("time/"): mean(lambda s, name=name: s["phases"][name]) for name in every[0]["phases"]
        },
        "engine_seconds": mean(lambda s: s["engine"]),
        "model_seconds": mean(lambda s: s["model"]),
        "waiting_for_other_ranks_seconds": mean(lambda s: s["waiting"]),
        "grading_with_answers_seconds": round(grading, 4),
        "overhead_share": round(statistics.mean(overhead), 4),
        "overhead_share_largest": round(max(overhead), 4),
        "overhead_share_without_waiting": round(statistics.mean(own), 4),
        "overhead_share_without_waiting_largest": round(max(own), 4),
        "generated_tokens_per_second": round(sum(tokens) / sum(generate)),
        "generated_tokens_per_step": round(statistics.mean(tokens)),
        "responses_per_step": every[0]["responses"],
        "steps_measured": len(ranks[0]),
    }


def main() -> None:
    data = Path(sys.argv[1]).resolve()
    engines = ["embedded", *(["vllm"] if importlib.util.find_spec("vllm") else [])]
    from importlib.metadata import version

    import torch

    found: dict[str, Any] = {
        "command": f"python benchmarks/dapo_step.py {data.name}",
        "settings": [word for word in SETTINGS],
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, no GPU"
        if not torch.cuda.is_available()
        else torch.cuda.get_device_name(),
        "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
    }
    if "vllm" in engines:
        found["versions"]["vllm"] = __import__("vllm").__version__
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            ranks = launched(engine, data, Path(folder) / engine)
            grading = grading_seconds(data, ranks[0][0]["responses"] // RANKS)
            found[engine] = summary(ranks, grading)
            print(json.dumps({engine: found[engine]}, indent=1), flush=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(RESULT.relative_to(ROOT))


if __name__ == "__main__":
    if "RANK" in os.environ:
        worker()
    else:
        main()
