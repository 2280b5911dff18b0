"""Preset files: YAML that may extend another file and offer variants of itself, merged before anything typed.

`extends: other.yaml` (relative to the file, else one of aepo's presets) puts the sections of that file underneath.
`variants:` maps names to sections; those chosen are merged over the preset in the order in which the files define them,
the extended one's first.
"""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aepo
from aepo.errors import AepoError
from aepo.llm.settings import plain_yaml
from aepo.suggest import did_you_mean

_PACKED = Path(aepo.__file__).with_name("configs")
FOLDER = _PACKED if _PACKED.is_dir() else _PACKED.parents[1] / "configs"
"""aepo's own presets: packed with an installed package, and beside the package in a checkout."""


class SettingsError(AepoError, ValueError):
    """Settings that cannot be used; the message lists every problem, one a line."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A file with what it extends."""

    sections: Mapping[str, Any]
    """Settings by section, not checked yet."""
    variants: Mapping[str, Mapping[str, Any]]
    """Sections that change the preset, by name."""

    def chosen(
        self, names: Sequence[str], *, merged: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """The sections with these variants.

        Args:
            names: of `variants`, in any order.
            merged: (sections, changes) -> sections.

        Raises:
            SettingsError: an unknown variant, with the nearest.
        """
        for name in names:
            if name not in self.variants:
                hint = did_you_mean(name, self.variants, mark=",") or "."
                known = ", ".join(self.variants) or "none"
                raise SettingsError(f"--variant: unknown variant {name!r}{hint} The preset has: {known}")
        sections = dict(self.sections)
        for name, changes in self.variants.items():
            if name in names:
                sections = merged(sections, changes)
        return sections


def names(folder: Path = FOLDER) -> list[str]:
    """The presets of a folder, as `--config` takes them."""
    return [path.name.removesuffix(".yaml") for path in sorted(folder.glob("*.yaml"))]


def find(config: str | Path) -> Path:
    """The file that `--config` means: a file of this path, else aepo's preset of this name, from any working directory.

    Args:
        config: a path, or `NAME`, `NAME.yaml` or `configs/NAME.yaml`.

    Raises:
        SettingsError: there is neither, with the presets that there are.
    """
    return _found(str(config), Path(), f"--config {config}")


def _found(config: str, folder: Path, named: str) -> Path:
    """As `find`, with paths relative to a folder."""
    path = folder / config
    if _is_file(path):
        return path
    # Only what looks like a name: a path elsewhere that does not exist is never answered by another file.
    name = Path(config).as_posix().removeprefix("configs/").removesuffix(".yaml")
    own = FOLDER / f"{name}.yaml"
    if not Path(config).is_absolute() and ".." not in Path(config).parts and _is_file(own):
        return own
    hint = did_you_mean(Path(name).name, names(), mark=",") or "."
    others = sorted(p for p in path.parent.glob("*.yaml") if p.parent.resolve() != FOLDER.resolve())
    beside = f"; files beside it: {', '.join(map(str, others))}" if others else ""
    raise SettingsError(f"{named}: no such file or preset{hint} Presets: {', '.join(names())}{beside}")


def _is_file(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file()
    # A name that no disk takes.
    return False


def read(config: str | Path) -> Preset:
    """A preset file, found as `find` does.

    Raises:
        SettingsError: no such file, one that is not YAML of this form, or files that extend each other in a circle.
    """
    return _read(find(config), f"--config {config}", ())


def _read(path: Path, named: str, below: tuple[Path, ...]) -> Preset:
    below = (*below, path.resolve())
    try:
        # An empty file holds nothing, and that is a preset.
        sections = plain_yaml.loaded(path.read_bytes()) or {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{named}: not readable as YAML: {error}") from error
    if not isinstance(sections, dict):
        raise SettingsError(f"{named}: must hold sections with fields, got {type(sections).__name__}")
    if unnamed := [key for key in sections if not isinstance(key, str)]:
        raise SettingsError(f"{named}: must hold sections with fields, got {unnamed[0]!r} for the name of one")
    base = sections.pop("extends", None)
    variants = _variants(sections.pop("variants", {}), named)
    if base is None:
        return Preset(sections=sections, variants=variants)
    if not isinstance(base, str):
        raise SettingsError(f"{named}: extends must be the path of one file, got {base!r}")
    under_named = f"{named}: extends: {base}"
    found = _found(base, path.parent, under_named)
    other = found.resolve()
    if other in below:
        circle = " -> ".join(p.name for p in (*below[below.index(other) :], other))
        raise SettingsError(f"{named}: presets extend each other in a circle: {circle}; take one extends out")
    under = _read(found, under_named, below)
    return Preset(sections=merged(under.sections, sections), variants=merged(under.variants, variants))


def _variants(found: Any, named: str) -> dict[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(sections, dict) for sections in found.values()):
        raise SettingsError(f"{named}: variants must map names to sections with fields, got {found!r}")
    for name, sections in found.items():
        if foreign := {"extends", "variants"} & set(sections):
            raise SettingsError(f"{named}: variant {name!r} cannot hold {', '.join(sorted(foreign))}")
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, `above` where they differ; lists are replaced whole. Neither is shared with what is returned."""
    found = copy.deepcopy(dict(below))
    for name, value in above.items():
        under = found.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        found[name] = merged(under, value) if both else copy.deepcopy(value)
    return found


def listing(folder: Path = FOLDER) -> str:
    """Every preset of a folder with its first comment line, and its variants."""
    lines = []
    for name in names(folder):
        path = folder / f"{name}.yaml"
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        lines.append(f"  --config {name}\n      {first.removeprefix('#').strip()}")
        if variants := read(path).variants:
            lines.append(f"      --variant NAME[,NAME...]: {', '.join(variants)}")
    return "\n".join(lines)
