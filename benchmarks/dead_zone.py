"""How much of an update reaches bfloat16 weights, from masters in the middle of their rounding intervals and spread?

One policy gradient of a model, then AdamW steps along it at 2e-5 and at 1e-6 (the paper's), in float32 and in bfloat16
from both kinds of masters. Of each: the share of weights that changed; by the weights that compute, the mean entropy
and what the gradient raises (advantage x log-prob). The ceiling is float32, whose every update is seen.

    python benchmarks/dead_zone.py                      # a Llama of SmolLM2-135M's shape: results/dead_zone.json
    python benchmarks/dead_zone.py --model FOLDER       # a model of one's own
    python benchmarks/dead_zone.py --small              # a tiny one, in seconds: results/dead_zone_small.json
"""

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aepo.llm.policy.masters import dithered

RESULT = Path(__file__).parent / "results" / "dead_zone.json"
RATES, STEPS, WEIGHT_DECAY = (2e-5, 1e-6), (1, 3), 0.01
PROMPTS, PROMPT_TOKENS, RESPONSES, RESPONSE_TOKENS = 8, 21, 8, 3
WAYS = ("float32", "bfloat16, middle", "bfloat16, dithered")


def built(chosen: argparse.Namespace) -> nn.Module:
    """The model in float32, its weights those that bfloat16 has, so that all ways start from the same policy."""
    if chosen.model:
        from transformers import AutoModelForCausalLM

        made = AutoModelForCausalLM.from_pretrained(chosen.model, dtype=torch.float32)
    else:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        sizes = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
        sizes |= {"intermediate_size": 1536, "vocab_size": 49152}
        if chosen.small:
            sizes |= {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1}
            sizes |= {"intermediate_size": 128, "vocab_size": 512}
        # Wide enough a start that the distributions are far from uniform, as a trained model's are.
        made = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True, initializer_range=0.04))
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return made.eval()


def rows(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Prompts of any tokens with the model's own greedy and random responses, and an advantage for each response."""
    draw = torch.Generator().manual_seed(1)
    prompt = torch.randint(1, model.config.vocab_size, (PROMPTS, PROMPT_TOKENS), generator=draw)
    ids = prompt.repeat_interleave(RESPONSES, 0)
    for _ in range(RESPONSE_TOKENS):
        with torch.no_grad():
            probs = model(input_ids=ids, logits_to_keep=1).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probs, 1, generator=draw)], 1)
    reward = torch.randint(0, 2, (PROMPTS, RESPONSES), generator=draw).float()
    advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)
    return ids, advantage.flatten()


def stats(model: nn.Module, ids: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """The advantage's mean log-prob, which the gradient raises, and the mean entropy of the response's tokens."""
    logp = model(input_ids=ids, logits_to_keep=RESPONSE_TOKENS + 1).logits[:, :-1].float().log_softmax(-1)
    chosen = logp.gather(-1, ids[:, -RESPONSE_TOKENS:].unsqueeze(-1)).squeeze(-1)
    return (advantage.unsqueeze(-1) * chosen).mean(), -(logp.exp() * logp).sum(-1).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of a causal LM in transformers' format")
    parser.add_argument("--small", action="store_true", help="a tiny random model")
    parser.add_argument("--out", type=Path, help="default: results/dead_zone.json, or dead_zone_small.json")
    chosen = parser.parse_args()
    out = chosen.out or RESULT.with_stem(RESULT.stem + "_small" * chosen.small)
    torch.set_num_threads(1)
    model = built(chosen)
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids, advantage = rows(model)
    gain, entropy = stats(model, ids, advantage)
    (-gain).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    gradient = {name: p.grad for name, p in model.named_parameters()}
    at_start = {"gain": float(gain.detach()), "entropy": float(entropy.detach())}
    masters = {
        "float32": base,
        "bfloat16, middle": base,
        "bfloat16, dithered": {name: dithered(w.bfloat16(), seed=0, name=name) for name, w in base.items()},
    }
    total = sum(w.numel() for w in base.values())
    table: list[dict[str, Any]] = []
    print(f"start: gain {at_start['gain']:.4f}, H {at_start['entropy']:.4f}; {total / 1e6:.1f} million weights")
    print(f"{'lr':>8}{'steps':>7}  {'way':20}{'changed':>9}{'gain':>10}{'of float32':>12}{'H':>9}")
    for lr in RATES:
        for steps in STEPS:
            full = None
            for way in WAYS:
                wide = {name: nn.Parameter(w.clone()) for name, w in masters[way].items()}
                for name, parameter in wide.items():
                    parameter.grad = gradient[name]
                optimizer = torch.optim.AdamW(wide.values(), lr=lr, weight_decay=WEIGHT_DECAY)
                for _ in range(steps):
                    optimizer.step()
                changed = 0
                with torch.no_grad():
                    for name, parameter in model.named_parameters():
                        value = wide[name].detach()
                        parameter.copy_(value if way == "float32" else value.bfloat16().float())
                        changed += int((parameter != base[name]).sum())
                    after, H = stats(model, ids, advantage)
                moved = float(after) - at_start["gain"]
                full = moved if way == "float32" else full
                row = {"lr": lr, "steps": steps, "way": way, "changed": changed / total, "gain": moved}
                table.append(row | {"of_float32": moved / full, "entropy": float(H)})
                numbers = f"{row['changed']:9.2%}{moved:10.5f}{moved / full:12.2f}{float(H):9.4f}"
                print(f"{lr:8.0e}{steps:7d}  {way:20}{numbers}", flush=True)
    report = {
        "command": " ".join(["python benchmarks/dead_zone.py", *sys.argv[1:]]),
        "model": f"{Path(chosen.model).name if chosen.model else 'random Llama'}, {total / 1e6:.1f} million weights",
        "device": f"CPU, {platform.machine()}, 1 thread",
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "start": at_start,
        "rows": table,
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    last = {row["way"]: row["of_float32"] for row in table if row["lr"] == 1e-6 and row["steps"] == 1}
    print(json.dumps({"of float32 after one step at 1e-6": last}))


if __name__ == "__main__":
    main()
