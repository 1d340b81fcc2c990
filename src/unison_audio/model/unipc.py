"""UniPC of order 2 for a flow (Zhao et al. 2023), bit-identical to diffusers' scheduler.

Importing diffusers takes more processor time than a sound of nano, whose presets use this solver
alone. The paper's sigma is the flow time here, and its alpha is 1 - sigma.

A step has two parts. UniC corrects the last step with the velocity at its end, which has just been
evaluated anyway. UniP then predicts the next step. So order 2 costs one evaluation per step.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ORDER = 2

LAST_TIME = 1e-3
"""Last of the S + 1 equally spaced times from 1; it is then replaced by 0, as diffusers does."""

FIRST_GAP = 1e-6
"""Distance of the first time from 1, where log(1 - sigma) would be infinite."""


class _Interval(NamedTuple):
    """Coefficients of the exponential integrator between two times, as scalar tensors."""

    alpha: Tensor
    """1 - sigma at the end."""
    ratio: Tensor
    """sigma at the end, divided by sigma at the start."""
    start: Tensor
    """Log signal-to-noise ratio at the start."""
    h: Tensor
    """Increase of the log signal-to-noise ratio over the interval."""
    growth: Tensor
    """exp(-h) - 1, the paper's B(h)."""


class UniPC:
    """The solver's times and its history of the last two steps.

    Args:
        steps: Number of steps S from noise to data.
    """

    def __init__(self, steps: int) -> None:
        # numpy, and float64 until the end: torch.linspace differs from it in the last bits.
        times = np.linspace(1, LAST_TIME, steps + 1)[:-1]
        times[0] -= FIRST_GAP
        self._sigmas = torch.from_numpy(np.append(times, 0).astype(np.float32))  # (S + 1,)
        self.times: Tensor = self._sigmas[:-1]
        """(S,) time of each velocity evaluation."""
        self._estimates: list[Tensor] = []  # of z at t = 0, newest last; at most two
        self._started: Tensor | None = None  # z at the start of the last step
        self._order = 1  # of the last step

    def advance(self, v: Tensor, step: int, z: Tensor) -> Tensor:
        """Advance z from time number `step` to the next; steps must be taken in order."""
        # The model predicts v = eps - z_0, and z = (1 - sigma) z_0 + sigma eps.
        estimate = z - self._sigmas[step] * v
        if self._started is not None:
            z = self._correct(estimate, step, self._started)
        self._estimates = [*self._estimates[1 - ORDER :], estimate]
        self._started = z
        # The first step has no earlier estimate for a slope. In the last one sigma reaches 0 and h
        # is infinite, so that a slope over h has no meaning.
        self._order = min(ORDER, len(self._estimates), len(self.times) - step)
        return self._predict(step, z)

    def _predict(self, step: int, z: Tensor) -> Tensor:
        """UniP: take a step with the slope of the last two estimates."""
        over = self._interval(step, step + 1, z.device)
        following = over.ratio * z - over.alpha * over.growth * self._estimates[-1]
        if self._order == 1:
            return following
        _, slope = self._slope(over, step - 1)
        return following - over.alpha * over.growth * (0.5 * slope)

    def _correct(self, estimate: Tensor, step: int, z: Tensor) -> Tensor:
        """UniC: repeat the last step with the estimate at its end."""
        over = self._interval(step - 1, step, z.device)
        newest = self._estimates[-1]
        reached = over.ratio * z - over.alpha * over.growth * newest
        change = estimate - newest
        if self._order == 1:
            return reached - over.alpha * over.growth * (0.5 * change)
        place, slope = self._slope(over, step - 2)
        # Weights of both differences that make the step exact for polynomials up to order 2,
        # from the moments of the exponential weight.
        places = torch.stack([place, torch.ones_like(place)])
        first = over.growth / -over.h - 1
        second = first / -over.h - 0.5
        moments = torch.stack([first / over.growth, second * 2 / over.growth])
        weights = torch.linalg.solve(torch.stack([places**0, places]), moments)
        total = weights[0] * slope + weights[1] * change
        return reached - over.alpha * over.growth * total

    def _slope(self, over: _Interval, older: int) -> tuple[Tensor, Tensor]:
        """Position of an older time in units of the interval, and the estimates' slope there."""
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
