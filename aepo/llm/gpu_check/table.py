"""The results for a person, in Markdown, and for a program, in JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aepo.llm.gpu_check.running import Finding, Outcome


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that a run of the command found, as far as it has come."""

    command: str
    when: str
    """Its beginning, ISO 8601 in UTC."""
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    """Package or tool -> what is left out without it."""
    outcomes: Sequence[Outcome]

    @property
    def device(self) -> Mapping[str, Any] | None:
        """What stage about says of the device, or None if it could not."""
        return next((facts for one in self.outcomes if (facts := one.facts("device")) is not None), None)

    def as_json(self) -> str:
        """One object: command, when, device, versions, missing, and the stages with their checks."""
        found = {
            "command": self.command,
            "when": self.when,
            "device": self.device,
            "versions": dict(self.versions),
            "missing": dict(self.missing),
            "stages": [_plain(one) for one in self.outcomes],
        }
        return json.dumps(found, indent=1, default=str) + "\n"

    def as_markdown(self) -> str:
        """A row per stage, then a table of checks per stage that made some."""
        device = self.device
        lines = [
            f"# {device['name'] if device else 'unknown device (stage about says why)'}",
            "",
            f"`{self.command}`, {self.when}",
            "",
            ", ".join(f"{name} {version}" for name, version in self.versions.items()) or "none of the packages is here",
            "",
            *[f"- {name} is not here, and therefore not: {use}." for name, use in self.missing.items()],
            "",
            "| stage | outcome | seconds | at most | checks passed, failed, left out | what it answers; why not |",
            "|---|---|---|---|---|---|",
        ]
        for one in self.outcomes:
            counts = ", ".join(str(_count(one.findings, status)) for status in ("passed", "failed", "left out"))
            said = _cell(f"{one.stage.answers} {one.why or ''}")
            times = f"{one.seconds:.1f} | {one.stage.seconds:g}"
            lines.append(f"| {one.stage.name} | **{one.status}** | {times} | {counts} | {said} |")
        for one in self.outcomes:
            if one.findings:
                lines += ["", f"## {one.stage.name}", "", "| check | outcome | found |", "|---|---|---|"]
                lines += [f"| {_cell(f.what)} | {f.status} | {_cell(_said(f))} |" for f in one.findings]
        return "\n".join(lines) + "\n"


def _plain(one: Outcome) -> dict[str, Any]:
    return {
        "stage": one.stage.name,
        "status": one.status,
        "why": one.why,
        "seconds": one.seconds,
        "limit_seconds": one.stage.seconds,
        "checks": [vars(finding) for finding in one.findings],
    }


def _count(findings: Sequence[Finding], status: str) -> int:
    return sum(one.status == status for one in findings)


def _said(one: Finding) -> str:
    facts = ", ".join(f"{name} {_number(value)}" for name, value in one.facts.items())
    return "; ".join(filter(None, [one.why, facts]))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str | None) -> str:
    """A text that stays within its cell."""
    return " ".join((text or "").split()).replace("|", "\\|")
