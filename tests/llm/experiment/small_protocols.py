"""A protocol of a few short runs of a very small model, with an arm of each kind that is run differently."""

from pathlib import Path

from aepo.llm.experiment.ladder import protocol
from aepo.llm.experiment.ladder.protocol import Protocol

ARMS = """
  base: {label: before RL, trained: false}
  grpo: {label: GRPO, followed: true, settings: {method.name: grpo}}
  aepo_0.5: {label: AEPO 0.5, settings: {target.value: 0.5}}
"""
TEXT = """
preset: small.yaml
steps: 6
middle_target: 0.5
stages:
  L: {what: choose, seeds: {first: 0, count: 2}, judges: false, arms: [grpo]}
  A: {what: main, seeds: {first: 100, count: 2}, arms: [base, grpo, aepo_0.5]}
most_seeds: 3
evaluation:
  last_steps: 2
  prompts: 24
  narrow: {temperature: 0.1, samples: 2}
  whole: {temperature: 1, samples: 8}
  more: {arms: [base, grpo], top_p: 0.95, samples: 16, seeds: {first: 100, count: 1}}
  checkpoints: {every: 2, samples: 4}
metrics:
  pass@1 T=0.1: {smallest: 2, wanted: 4}
  pass@8: {smallest: 1.5, wanted: 2.5}
alpha: 0.05
claims:
  - says: GRPO's entropy collapses
    tests: [{test: collapses, arms: [grpo], below: 0.25}]
  - says: AEPO is above GRPO
    tests: [{test: above, arms: [aepo_0.5], than: [grpo], metrics: [pass@1 T=0.1, pass@8]}]
arms:"""


def small(folder: Path, *, steps: int = 6) -> Protocol:
    """Left in a folder, with the preset that it names."""
    (folder / "small.yaml").write_text(
        "extends: ladder_cpu\n"
        "model: {hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32}\n"
        f"warm_start: {{steps: 60, rows: 32, cache: {folder / 'warm'}}}\n"
        "train: {prompts_per_step: 4, minibatches: 2}\nrollout: {group_size: 4}\n"
    )
    path = folder / "protocol.yaml"
    path.write_text(TEXT.replace("steps: 6", f"steps: {steps}") + ARMS)
    return protocol.read(path)
