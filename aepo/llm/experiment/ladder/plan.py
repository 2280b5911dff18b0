"""Which runs are asked for by a command line."""

from collections.abc import Sequence

from aepo.llm.experiment.ladder.protocol import Protocol
from aepo.llm.settings import SettingsError


def runs_of(protocol: Protocol, *, stage: str | None, arms: Sequence[str], seeds: int | None) -> list[tuple[str, int]]:
    """(arm, seed) of what is asked for, one seed after the other: what is cut short has whole seeds.

    Args:
        protocol: whose arms.
        stage: by its name; None: the arms' own.
        arms: as typed; all of the stage where there are none.
        seeds: the first so many; None: as many as the stage has.

    Raises:
        SettingsError: an unknown stage or arm, an arm that is not of the stage, neither, or more seeds than there are.
    """
    if stage is not None and stage not in protocol.stages:
        raise SettingsError(f"--stage: must be one of {', '.join(protocol.stages)}, got {stage!r}")
    if stage is None and not arms:
        raise SettingsError(f"name what to run: --stage ({', '.join(protocol.stages)}) or --arms, or --report")
    chosen = list(dict.fromkeys(protocol.arm_named(name) for name in arms))
    if stage is not None:
        of_stage = protocol.stages[stage].arms
        if foreign := [arm for arm in chosen if arm not in of_stage]:
            raise SettingsError(f"--arms: {', '.join(foreign)} is not in stage {stage}: {', '.join(of_stage)}")
        chosen = chosen or list(of_stage)
    found = []
    for arm in chosen:
        of = protocol.stages[stage or protocol.stage_of(arm)]
        most = protocol.most_seeds if of.judges else of.seeds.count
        if seeds is not None and not 1 <= seeds <= most:
            raise SettingsError(f"--seeds: must be in 1 .. {most}, got {seeds}")
        found += [(arm, seed) for seed in range(of.seeds.first, of.seeds.first + (seeds or of.seeds.count))]
    return sorted(found, key=lambda run: run[1])
