"""Weights & Biases, for runs that ask for it: one run there per run here, also across interruptions."""

import importlib.util
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from aepo import extras
from aepo.llm.settings import Settings, SettingsError

ID_FILE = "wandb_id.txt"
"""Under the run's `out`: the id that a resumed run goes on with."""
INSTALL = extras.install("wandb")


def check_wandb(settings: Settings) -> None:
    """Nothing, if the run can be logged as asked; to be called before anything expensive.

    Raises:
        SettingsError: the package or the credentials are missing.
    """
    if settings.log.wandb_project is None:
        return
    asked = f"log.wandb_project={settings.log.wandb_project}"
    spec = importlib.util.find_spec("wandb")
    # A folder of that name in the working directory, which the package itself makes, has no origin.
    if spec is None or spec.origin is None:
        raise SettingsError(f"{asked} needs the package wandb: {INSTALL}; or leave log.wandb_project out")
    if os.environ.get("RANK", "0") != "0":
        return
    import wandb

    if wandb.setup().settings.mode not in ("online", "shared"):
        return
    if not wandb.login(prompt=False, verify=False):
        raise SettingsError(
            f"{asked} needs an API key: `wandb login`, or WANDB_API_KEY; or WANDB_MODE=offline, which writes under "
            f"{settings.out}/wandb for `wandb sync`"
        )


class WandbRun:
    """Rank 0's connection.

    Args:
        settings: with log.wandb_project.
        first_step: of this part of the run; 0 starts a run of its own there.
        written: the largest step that was ever logged here, also by a part that was cut off; None: none.
    """

    def __init__(self, settings: Settings, *, first_step: int, written: int | None) -> None:
        import wandb

        kept = Path(settings.out) / ID_FILE
        resumed = first_step > 0 and kept.is_file()
        if not resumed:
            kept.write_text(secrets.token_hex(4))
        self.run = wandb.init(
            project=settings.log.wandb_project,
            name=settings.log.wandb_name,
            id=kept.read_text().strip(),
            resume="allow",
            dir=settings.out,
            config=settings.model_dump(mode="json"),
        )
        # Steps after the checkpoint are made again and give the same; what was sent once cannot be taken back.
        self.logged = written if resumed and written is not None else -1

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """One step's numbers; a step that is there already is left as it is."""
        if step > self.logged:
            self.run.log(dict(metrics), step=step)
            self.logged = step

    def close(self) -> None:
        """Send the rest."""
        self.run.finish()
