"""What no way of the fused operation can do without: floating-point operations and bytes of memory, by backend.

Counted are the matrix products and every pass over a tensor of tokens by vocabulary; hidden states, weights and their
gradients count once. What a cache spares or reads again is not counted. Letters: N tokens, d hidden size, V vocabulary.
"""

from dataclasses import dataclass

PEAKS = {"H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12), "A100": (312e12, 2.0e12), "A800": (312e12, 2.0e12)}
"""Part of a device's name -> FLOP/s of dense bfloat16 and bytes/s of its memory, by the vendor's data sheets; of the
cards with 80 GB where there are two."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Work of a call."""

    flop: float
    bytes: float

    def seconds(self, device: str) -> float | None:
        """The longer of both at a device's peaks; None for one whose peaks are not known."""
        for name, (per_second, bandwidth) in PEAKS.items():
            if name in device:
                return max(self.flop / per_second, self.bytes / bandwidth)
        return None


def floor(backend: str, call: str, shape: tuple[int, int, int], *, itemsize: int) -> Floor:
    """The work of one call.

    Args:
        backend: `products` (the matrix products alone), `torch`, `gemm` or `triton`.
        call: `forward` (the statistics), `both` (with their backward pass) or `loss` (`linear_policy_loss` with its).
        shape: (N, d, V).
        itemsize: bytes of a number of the operands.

    Raises:
        ValueError: an unknown backend or call.
    """
    n, d, v = shape
    logits, wide = n * v, 4
    # Whoever stores no logits, or gives them up after the forward pass, makes them twice.
    again = (call == "both" and backend != "products") or (call == "loss" and backend == "triton")
    products = 1 if call == "forward" else 3 + again
    # Float32 logits written once for each time they are made, read by the statistics and by the gradient; the gradient
    # written once and read by two products.
    passes = {
        "products": {"forward": 0, "both": 0, "loss": 0},
        "torch": {"forward": 2 * wide, "both": 8 * wide, "loss": 6 * wide},
        "gemm": {"forward": 2 * wide, "both": 4 * wide + 3 * itemsize, "loss": 3 * wide + 3 * itemsize},
        "triton": {"forward": 0, "both": 3 * itemsize, "loss": 3 * itemsize},
    }
    if backend not in passes or call not in passes[backend]:
        raise ValueError(f"no floor is known of {backend!r} and {call!r}")
    operands = (n + v) * d * itemsize * (1 if call == "forward" else 3)
    return Floor(flop=2.0 * n * d * v * products, bytes=float(logits * passes[backend][call] + operands))
