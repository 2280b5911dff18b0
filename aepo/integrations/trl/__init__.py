"""AEPO and every other method of the zoo inside TRL's GRPO trainer.

>>> from aepo.integrations.trl import AEPOConfig, AEPOTrainer  # doctest: +SKIP
>>> args = AEPOConfig("out", method="aepo", target=0.5)  # doctest: +SKIP
>>> AEPOTrainer("Qwen/Qwen2.5-0.5B-Instruct", reward, args, train_dataset=questions).train()  # doctest: +SKIP
"""

from aepo.extras import install, missing

if absent := missing("trl"):
    raise ImportError(f"aepo.integrations.trl needs {', '.join(absent)}: {install('trl')}")

from aepo.integrations.trl.config import AEPOConfig
from aepo.integrations.trl.trainer import AEPOTrainer

__all__ = ["AEPOConfig", "AEPOTrainer"]
