"""UniPC of order 2 for a flow (Zhao et al. 2023), with the bits of diffusers' scheduler.

Importing diffusers takes more processor time than nano needs for a sound, and nano's presets use
this solver alone. A time of the flow is called sigma here; the share of the data is 1 - sigma.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ORDER = 2

LAST_TIME = 1e-3
"""Times are even from 1 to here, with one time more than there are steps; that one becomes 0."""

FIRST_GAP = 1e-6
"""The first time is this much below 1, where the logarithm of the data's share is infinite."""


class _Interval(NamedTuple):
    """Coefficients of the exponential integrator between two times; tensors without dimension."""

    alpha: Tensor
    """Share of the data at the end."""
    ratio: Tensor
    """sigma at the end over sigma at the start."""
    start: Tensor
    """Log signal-to-noise ratio at the start."""
    h: Tensor
    """Its increase."""
    growth: Tensor
    """exp(-h) - 1, the paper's B(h)."""


class UniPC:
    """The times of the solver, and what it remembers of the last steps.

    Args:
        steps: Steps from noise to data, S.
    """

    def __init__(self, steps: int) -> None:
        times = np.linspace(1, LAST_TIME, steps + 1)[:-1]
        times[0] -= FIRST_GAP
        self._sigmas = torch.from_numpy(np.append(times, 0).astype(np.float32))  # (S + 1,)
        self.times: Tensor = self._sigmas[:-1]
        """(S,) the time of each velocity that is asked for."""
        self._estimates: list[Tensor] = []  # of the data, the newest last; two at most
        self._started: Tensor | None = None  # z where the last step began
        self._order = 1  # of the last step

    def advance(self, v: Tensor, step: int, z: Tensor) -> Tensor:
        """From z at time number `step` to z at the next; steps are taken in order."""
        estimate = z - self._sigmas[step] * v
        if self._started is not None:
            z = self._correct(estimate, step, self._started)
        self._estimates = [*self._estimates[1 - ORDER :], estimate]
        self._started = z
        # The first step knows no slope; in the last one h is infinite, and a slope has no meaning.
        self._order = min(ORDER, len(self._estimates), len(self.times) - step)
        return self._predict(step, z)

    def _predict(self, step: int, z: Tensor) -> Tensor:
        """UniP: a step with the slope of the last two estimates."""
        over = self._interval(step, step + 1, z.device)
        following = over.ratio * z - over.alpha * over.growth * self._estimates[-1]
        if self._order == 1:
            return following
        _, slope = self._slope(over, step - 1)
        return following - over.alpha * over.growth * (0.5 * slope)

    def _correct(self, estimate: Tensor, step: int, z: Tensor) -> Tensor:
        """UniC: the last step again, now that the estimate at its end is known."""
        over = self._interval(step - 1, step, z.device)
        newest = self._estimates[-1]
        reached = over.ratio * z - over.alpha * over.growth * newest
        change = estimate - newest
        if self._order == 1:
            return reached - over.alpha * over.growth * (0.5 * change)
        place, slope = self._slope(over, step - 2)
        # Weights of both differences, such that polynomials up to the order are exact.
        places = torch.stack([place, torch.ones_like(place)])
        first = over.growth / -over.h - 1
        second = first / -over.h - 0.5
        moments = torch.stack([first / over.growth, second * 2 / over.growth])
        weights = torch.linalg.solve(torch.stack([places**0, places]), moments)
        total = weights[0] * slope + weights[1] * change
        return reached - over.alpha * over.growth * total

    def _slope(self, over: _Interval, older: int) -> tuple[Tensor, Tensor]:
        """Where an older time lies in an interval, and the estimates' difference over that."""
        place = (self._log_snr(self._sigmas[older].to(over.h.device)) - over.start) / over.h
        return place, (self._estimates[0] - self._estimates[-1]) / place

    def _interval(self, start: int, end: int, device: torch.device) -> _Interval:
        sigma, before = self._sigmas[end].to(device), self._sigmas[start].to(device)
        log_snr = self._log_snr(before)
        h = self._log_snr(sigma) - log_snr
        return _Interval(1 - sigma, sigma / before, log_snr, h, torch.expm1(-h))

    @staticmethod
    def _log_snr(sigma: Tensor) -> Tensor:
        return torch.log(1 - sigma) - torch.log(sigma)
