"""The loss of SNCA with all similarities at once, in numpy and float64."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp


class Settings(NamedTuple):
    temperature: float = 0.05
    momentum: float = 0.5
    margin: float = 0.0


class Outcome(NamedTuple):
    loss: float
    gradient: np.ndarray
    bank: np.ndarray
    losses: np.ndarray
    # The largest sum of absolute values of which an entry of the gradient is the sum.
    largest_sum: float


def snca(labels, bank, embeddings, index, settings):
    """Loss, its gradient with respect to the embeddings, the bank afterwards, the loss by image.

    Everything is float64 from here on, whatever comes in.
    """
    labels, index = np.asarray(labels), np.asarray(index)
    bank, embeddings = np.asarray(bank, np.float64), np.asarray(embeddings, np.float64)
    is_own = labels[index][:, None] == labels
    logits = embeddings @ bank.T / settings.temperature
    logits -= np.where(is_own, settings.margin / settings.temperature, 0)
    logits[np.arange(len(index)), index] = -np.inf
    with np.errstate(divide="ignore"):
        own = logsumexp(np.where(is_own, logits, -np.inf), axis=1)
        other = logsumexp(np.where(is_own, -np.inf, logits), axis=1)
    # float64 holds no smaller probability but 0.
    counts = (own > -np.inf) & (other - own < 745.13)
    losses = np.logaddexp(0, np.where(counts, other - own, -np.inf))
    among_own = np.where(is_own, np.exp(logits - np.where(counts, own, np.inf)[:, None]), 0)
    among_all = np.exp(logits - np.logaddexp(own, other)[:, None])
    # Of the own class, among_all is among_own times the probability.
    weights = np.where(is_own, among_own * np.expm1(-losses)[:, None], among_all)
    weights = np.where(counts[:, None], weights, 0) / (len(index) * settings.temperature)
    after = bank.copy()
    moved = settings.momentum * bank[index] + (1 - settings.momentum) * embeddings
    after[index] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    largest_sum = (np.abs(weights) @ np.abs(bank)).max()
    return Outcome(losses.sum() / len(index), weights @ bank, after, losses, largest_sum)
