"""The trainer without what parts the weights that ZeRO 3 has gathered for a pass that does not come."""

from aepo.llm import train
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper

if __name__ == "__main__":
    DeepSpeedStepper.settle = lambda self: None
    raise SystemExit(train.main())
