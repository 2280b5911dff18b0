"""Fine-tune a small instruct model on GSM8K at a chosen entropy: AEPO and LoRA by TRL, on one GPU of 24 GB.

pip install 'aepo-rl[trl]'
python examples/trl_gsm8k.py            # Qwen2.5-1.5B-Instruct
python examples/trl_gsm8k.py --smoke    # a tiny random model and two sums, on a CPU in a minute, without a network
"""

import os
import re
import sys

if SMOKE := "--smoke" in sys.argv:
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
from datasets import Dataset, load_dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from aepo.integrations.trl import AEPOConfig, AEPOTrainer

ASK = "{} Reason step by step and end with '#### ' and the number."


def right(completions, answer, **_):
    """1 for a response whose last number after #### is the reference's."""
    texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
    found = [re.findall(r"####\s*\$?(-?[\d,.]*\d)", text)[-1:] for text in texts]
    return [float([one.replace(",", "") for one in f] == [a]) for f, a in zip(found, answer, strict=True)]


def conversation(row):
    answer = row["answer"].split("#### ")[-1].replace(",", "")
    return {"prompt": [{"role": "user", "content": ASK.format(row["question"])}], "answer": answer}


def tiny():
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<eos>", "####", *"0123456789+="])}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    config = Qwen3Config(vocab_size=16, num_attention_heads=2, num_key_value_heads=1, eos_token_id=1, **sizes)
    sums = Dataset.from_list([{"prompt": "1 + 2 =", "answer": "3"}, {"prompt": "2 + 2 =", "answer": "4"}])
    return {"model": Qwen3ForCausalLM(config), "processing_class": tokenizer, "train_dataset": sums}


def large():
    rows = load_dataset("openai/gsm8k", "main", split="train").map(conversation)
    return {"model": "Qwen/Qwen2.5-1.5B-Instruct", "train_dataset": rows}


size = {"max_steps": 300, "max_completion_length": 400, "gradient_accumulation_steps": 8, "num_generations": 8}
if SMOKE:
    size = {"max_steps": 3, "max_completion_length": 6, "num_generations": 4, "use_cpu": True, "bf16": False}
args = AEPOConfig(
    "runs/trl_gsm8k", method="aepo_reach", target=0.3, learning_rate=1e-5, per_device_train_batch_size=8, **size
)
lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
AEPOTrainer(reward_funcs=right, args=args, peft_config=lora, **(tiny() if SMOKE else large())).train()
