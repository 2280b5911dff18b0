"""The torch backend's arithmetic, a chunk of the vocabulary at a time: statistics, and the gradient by the logits.

Letters: N tokens (rows), V vocabulary, C one chunk of it; z logits, y label, p = softmax(z), pT = softmax(z / T).
Everything is float32, or float64 for float64 inputs. A chunk is overwritten in place, so that it stays in the cache
from the matrix product to the last sum.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Below any logit and finite: a running maximum starts here, and -inf is raised to it, so that nothing is inf - inf.
LOWEST = -1e30


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What is asked about each row."""

    temperature: Tensor | None
    """(N, 1), > 0, of pT; None where nothing at a temperature other than 1 is asked for."""
    entropy: bool
    """Whether an entropy is asked for."""
    entropy_tempered: bool
    """Whether that is the entropy of pT, not of p; implies a temperature."""

    def rows(self, index: Tensor | slice) -> "Question":
        """The same about some of the rows."""
        if self.temperature is None:
            return self
        return dataclasses.replace(self, temperature=self.temperature[index])

    def upstream(self, gradients: dict) -> "Upstream":
        """Gradients by name, (N,) each; at T = 1 those of both log-probs are of one."""
        if self.temperature is not None or gradients.get("logp_t") is None:
            return Upstream(**gradients)
        given = [g for name, g in gradients.items() if name != "entropy"]
        return Upstream(logp=sum(given[1:], given[0]), entropy=gradients.get("entropy"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Stats:
    """Of each row, (N,): what was asked for, and the logarithms that give probabilities back."""

    logp: Tensor
    logp_t: Tensor | None
    entropy: Tensor | None
    log_mass: Tensor
    """ln sum exp z."""
    log_mass_t: Tensor | None
    """ln sum exp(z / T)."""

    def rows(self, index: Tensor | slice) -> "Stats":
        """Of some of the rows."""
        return Stats(**{name: None if value is None else value[index] for name, value in vars(self).items()})

    def kept(self) -> "Stats":
        """The same numbers for a backward pass: an output that its own graph held would keep both alive for ever."""
        return Stats(**{name: None if value is None else value.detach() for name, value in vars(self).items()})

    @staticmethod
    def joined(parts: "list[Stats]", question: Question, like: Tensor) -> "Stats":
        """One after another; of no rows at all if there are none."""
        parts = parts or [Running(question, like[:0]).stats()]
        named = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        return Stats(**{name: None if values[0] is None else torch.cat(values) for name, values in named.items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Upstream:
    """The loss's gradient by each statistic, (N,); None where it has none."""

    logp: Tensor | None = None
    logp_t: Tensor | None = None
    entropy: Tensor | None = None

    def rows(self, index: Tensor | slice) -> "Upstream":
        """Of some of the rows."""
        return Upstream(**{name: value[index] for name, value in vars(self).items() if value is not None})


class Running:
    """Sums over the part of the vocabulary seen so far, (N,) each, relative to its largest logit."""

    def __init__(self, question: Question, like: Tensor) -> None:
        """For as many rows as `like` has, in its dtype and on its device."""
        rows = len(like)
        self.question = question
        self.top = like.new_full((rows,), LOWEST)
        # sum exp(x), x = z - top; sum exp(x / T); and sum exp(x) x, or the same of x / T. The last has terms <= 0
        # only, so the entropy ln(mass) - moment / mass is a sum of two numbers >= 0: nothing cancels.
        self.mass = like.new_zeros(rows)
        self.mass_t = like.new_zeros(rows) if question.temperature is not None else None
        self.moment = like.new_zeros(rows) if question.entropy else None
        self.label = like.new_zeros(rows)

    def take(self, z: Tensor, label: Tensor, *, start: int) -> None:
        """Add the columns from `start` on, logits (N, C) that are overwritten."""
        place = (label - start).unsqueeze(-1)
        inside = (place >= 0) & (place < z.shape[-1])
        self.label += torch.where(inside, z.gather(1, place.clamp(0, z.shape[-1] - 1)), 0.0).squeeze(-1)
        self.move(torch.maximum(self.top, z.amax(-1)))
        z.sub_(self.top.unsqueeze(-1))
        exponential = z.exp()
        self.mass += exponential.sum(-1)
        if self.moment is not None and not self.question.entropy_tempered:
            self.moment += _row_dot(exponential, z)
        if self.mass_t is not None:
            torch.exp(z.div_(self.question.temperature), out=exponential)
            self.mass_t += exponential.sum(-1)
            if self.moment is not None and self.question.entropy_tempered:
                self.moment += _row_dot(exponential, z)

    def move(self, top: Tensor) -> None:
        """Make every sum relative to `top`, (N,)."""
        shift = self.top - top
        shift_t = shift if self.question.temperature is None else shift / self.question.temperature.squeeze(-1)
        if self.moment is not None:
            mass, by = (self.mass_t, shift_t) if self.question.entropy_tempered else (self.mass, shift)
            self.moment = by.exp() * (self.moment + by * mass)
        self.mass = self.mass * shift.exp()
        if self.mass_t is not None:
            self.mass_t = self.mass_t * shift_t.exp()
        self.top = top

    def join(self, partial: Tensor) -> None:
        """Take parts of the vocabulary whose sums are known: (5, S, N), top, mass, mass_t, moment and label's logit."""
        for top, mass, mass_t, moment, label in partial.unbind(1):
            other = Running(self.question, top)
            other.top, other.mass, other.label = top, mass, label
            other.mass_t = None if self.mass_t is None else mass_t
            other.moment = None if self.moment is None else moment
            highest = torch.maximum(self.top, top)
            self.move(highest)
            other.move(highest)
            for name in ("mass", "mass_t", "moment", "label"):
                if getattr(self, name) is not None:
                    setattr(self, name, getattr(self, name) + getattr(other, name))

    def reduce(self, group: Any) -> None:
        """Join the parts of the vocabulary that the group's processes took."""
        top = self.top.clone()
        torch.distributed.all_reduce(top, op=torch.distributed.ReduceOp.MAX, group=group)
        self.move(top)
        names = [name for name in ("mass", "mass_t", "moment", "label") if getattr(self, name) is not None]
        sums = torch.stack([getattr(self, name) for name in names])
        torch.distributed.all_reduce(sums, group=group)
        for name, value in zip(names, sums, strict=True):
            setattr(self, name, value)

    def stats(self) -> Stats:
        """The statistics, once the whole vocabulary was taken."""
        log_mass = self.mass.log()
        # A label that cannot occur keeps its log-prob of -inf.
        label = torch.where(self.label > LOWEST / 2, self.label - self.top, -torch.inf + 0 * self.label)
        log_mass_t = logp_t = None
        top_t = self.top
        if self.mass_t is not None and self.question.temperature is not None:
            t = self.question.temperature.squeeze(-1)
            log_mass_t, top_t = self.mass_t.log(), self.top / t
            logp_t = label / t - log_mass_t
        entropy = None
        if self.moment is not None:
            tempered = self.question.entropy_tempered
            entropy = (log_mass_t if tempered else log_mass) - self.moment / (self.mass_t if tempered else self.mass)
        return Stats(
            logp=label - log_mass,
            logp_t=logp_t,
            entropy=entropy,
            log_mass=self.top + log_mass,
            log_mass_t=None if log_mass_t is None else top_t + log_mass_t,
        )


def logits_gradient(
    z: Tensor, label: Tensor, stats: Stats, upstream: Upstream, question: Question, *, start: int
) -> Tensor:
    """The gradient by the columns from `start` on, whose logits (N, C) are overwritten.

    dz = (g1 + gT / T) [v = y] - g1 p - (gT / T) pT - gH p (ln p + H); for the entropy of pT the last term is
    (gH / T) pT (ln pT + H) instead.
    """
    g1, gt, gh = upstream.logp, upstream.logp_t, upstream.entropy
    tempered = question.entropy_tempered
    if question.temperature is not None:
        t = question.temperature.squeeze(-1)
        gt = None if gt is None else gt / t
        gh = gh / t if gh is not None and tempered else gh
    result = _probability_term(z, stats.log_mass, g1, None if tempered else gh, stats.entropy)
    if stats.log_mass_t is not None and (gt is not None or tempered):
        z.div_(question.temperature)
        other = _probability_term(z, stats.log_mass_t, gt, gh if tempered else None, stats.entropy)
        result = other if result is None else result if other is None else result.add_(other)
    if result is None:
        return z.zero_()
    if g1 is not None or gt is not None:
        place = (label - start).unsqueeze(-1)
        inside = (place >= 0) & (place < z.shape[-1])
        of_label = sum(g for g in (g1, gt) if g is not None)
        result.scatter_add_(1, place.clamp(0, z.shape[-1] - 1), torch.where(inside, of_label.unsqueeze(-1), 0.0))
    return result


def _probability_term(
    z: Tensor, log_mass: Tensor, by_logp: Tensor | None, by_entropy: Tensor | None, entropy: Tensor | None
) -> Tensor | None:
    """-p (g + gH (ln p + H)), (N, C), with p = exp(z - log_mass); None where both gradients are."""
    if by_logp is None and by_entropy is None:
        return None
    log_probs = z - log_mass.unsqueeze(-1)
    if by_entropy is None:
        return log_probs.exp_().mul_(-by_logp.unsqueeze(-1))
    result = log_probs.exp()
    offset = by_entropy * entropy if by_logp is None else by_logp + by_entropy * entropy
    return result.mul_(log_probs.mul_(-by_entropy.unsqueeze(-1)).sub_(offset.unsqueeze(-1)))


def _row_dot(left: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("nc,nc->n", left, right)
