"""Packs the presets: `configs/`, their one home, is `aepo/configs` in a wheel. All else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    """The packages, and the presets beside them; an editable install finds the latter where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for built, source in self._presets().items():
            self.mkpath(str(Path(built).parent))
            self.copy_file(source, built, preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._presets()]

    def get_output_mapping(self) -> dict[str, str]:
        return super().get_output_mapping() | self._presets()

    def _presets(self) -> dict[str, str]:
        """Built path -> source."""
        return {str(Path(self.build_lib, "aepo", path)): str(path) for path in sorted(Path("configs").rglob("*.yaml"))}


setup(cmdclass={"build_py": BuildWithPresets})
