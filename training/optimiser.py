"""Adam under a one-cycle learning rate, and the loss. Knows nothing of the networks it trains."""

import math

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch and every axis after the class axis, which is axis 1."""
    log_p = jax.nn.log_softmax(logits, axis=1)
    labels = labels.reshape(labels.shape + (1,) * (logits.ndim - 1))
    return -jnp.take_along_axis(log_p, labels, axis=1).mean()


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Cosine up to the peak over the first 30 % of the steps, then cosine down to nearly zero."""
    warm_up = 0.3 * steps
    if step < warm_up:
        return peak * (0.04 + 0.96 * (1 - math.cos(math.pi * step / warm_up)) / 2)
    return peak * (1e-5 + (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2)


def adam_start(weights: dict) -> tuple:
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return zeros, zeros


def adam(weights: dict, slopes: dict, moments: tuple, step: int, rate: float, decay: float = 0.0) -> tuple[dict, tuple]:
    """One step, counted from 1; `decay` is decoupled weight decay."""
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], slopes)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], slopes)
    mean_scale, square_scale = 1 / (1 - 0.9**step), 1 / (1 - 0.999**step)

    def move(w, m, v):
        return w - rate * (mean_scale * m / (jnp.sqrt(square_scale * v) + 1e-8) + decay * w)

    return jax.tree.map(move, weights, mean, square), (mean, square)
