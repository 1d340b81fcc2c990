"""Editing by a model that only generates: SDEdit and ZETA on the model's own backbone and codec.

Neither sees the edit's instruction: source and target are described by generation's templates,
with z_s = 0 and m = 0, and the source enters through the latent that integration begins with. Both
take steps of Euler's schedule, t_0 = 1 > t_1 > ... > t_S = 0; flow time as in `backbone.py`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.evaluation.edit_descriptions import DESCRIBED, Described, describe_edit
from unison_audio.evaluation.engine import System, fingerprint
from unison_audio.evaluation.test_sets.manifest import TestItem, TestSet, derived_seed
from unison_audio.inputs import ItemInputs, Request, prepare
from unison_audio.model.flow import add_noise
from unison_audio.model.guidance import Guidance
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.sampling import VelocityField
from unison_audio.model.solvers import Solver
from unison_audio.output_audio import decode
from unison_audio.pipeline import Unison
from unison_audio.provenance.origin import Origin
from unison_audio.release_inputs import dithered

START = 0.7
"""Default time at which both begin. ZETA's own program begins half-way down AudioLDM 2's schedule,
where noise and signal are mixed as they are here at t = 0.735."""

LEAST_STEPS = 32
"""Fewer of Euler's lose quality, also where a variant's own solver makes do with fewer."""

SOURCE_GUIDANCE = 1.0
"""Default guidance under which ZETA reads the source: the velocity with its description alone."""


def times_from(steps: int, start: float) -> Tensor:
    """The last part of Euler's schedule.

    Args:
        steps: Of the whole schedule.
        start: Time from 0 to 1; the first time is the schedule's next one at or below it.

    Returns:
        (K + 1,) falling times, the last of them 0; K is 0 for a start of 0.

    Raises:
        InputError: The start is no time, or there is not at least one step.
    """
    if not 0 <= start <= 1:
        raise InputError(f"An edit is to begin at the time {start!r}; give one from 0 to 1.")
    # 1e-6: the times are float32, and a start that is one of them must select it.
    times = Solver("euler", steps).times
    return torch.cat((times[times <= start + 1e-6], torch.zeros(1)))


def sdedit(
    field: VelocityField, z: Tensor, eps: Tensor, times: Tensor, guidance: Guidance
) -> Tensor:
    """Noise a latent and follow the field from there (Meng et al. 2022).

    `z_t = (1 - t) z + t eps` at the first of the times, then Euler steps to 0. From time 1 on it is
    plain generation from `eps`; without any step the result is `z`.

    Args:
        field: Of the target's description, at all times but the last.
        z: The source's latent, (B, C, T').
        eps: Standard normal noise, (B, C, T').
        times: As `times_from` gives them.
        guidance: How velocities are put together.

    Returns:
        (B, C, T').
    """
    first = float(times[0])
    z_t = add_noise(z, eps, torch.full((len(z),), first, device=z.device)) if first else z
    for step in range(len(times) - 1):
        v = _velocity(field, z_t, step, float(times[step]), guidance)
        z_t = z_t + (times[step + 1] - times[step]).to(z.device) * v
    return z_t


def zeta(
    source: VelocityField,
    target: VelocityField,
    z: Tensor,
    eps: Sequence[Tensor],
    times: Tensor,
    source_guidance: Guidance,
    guidance: Guidance,
) -> Tensor:
    """Edit-friendly inversion, and generation with what it found (Manor & Michaeli 2024).

    The source's path is `x_k = (1 - t_k) z + t_k eps_k` with independent noises. With the mean
    `mu_k` of `posterior_mean` under the source's description it leaves the corrections
    `r_k = x_{k+1} - mu_k(x_k)`. Generation begins at `y_0 = x_0` and continues with
    `y_{k+1} = mu_k(y_k) + r_k`, now under the target's description; the last step, to t = 0, has
    its correction too. The same description and guidance for both give `z` back.

    Args:
        source: Field of the source's description, at all times but the last.
        target: Field of the target's description, at all times but the last.
        z: The source's latent, (B, C, T').
        eps: Standard normal noises (B, C, T'), one for each time but the last.
        times: As `times_from` gives them.
        source_guidance: How the source's velocities are put together.
        guidance: How the target's are.

    Returns:
        (B, C, T').
    """

    def on_path(step: int) -> Tensor:
        if step == len(times) - 1:
            return z
        return add_noise(z, eps[step], torch.full((len(z),), float(times[step]), device=z.device))

    x, y = on_path(0), on_path(0)
    for step in range(len(times) - 1):
        t, after = float(times[step]), float(times[step + 1])
        then = on_path(step + 1)
        # The correction holds what the source's description does not explain. Added to the target's
        # mean, it carries the unedited parts over.
        left = then - posterior_mean(x, _velocity(source, x, step, t, source_guidance), t, after)
        y = posterior_mean(y, _velocity(target, y, step, t, guidance), t, after) + left
        x = then
    return y


def posterior_mean(z_t: Tensor, v: Tensor, t: float, after: float) -> Tensor:
    """The mean of DDPM's step (eta = 1) on the straight path, from time t to an earlier one.

    With the data `z_t - t v` and the noise `z_t + (1 - t) v` that a velocity implies, it is
    `(1 - t') (z_t - t v) + t' rho (z_t + (1 - t) v)`, where `rho = (1 - t) t' / ((1 - t') t)` is
    the share of the noise that is not drawn anew.

    Args:
        z_t: (B, C, T').
        v: Velocity there, (B, C, T').
        t: Above 0.
        after: t', below t.

    Returns:
        (B, C, T').
    """
    # At t = 1 this is 0, and all of the noise is drawn anew; at t' = 0 the mean is the data itself.
    kept = (1 - t) * after / ((1 - after) * t)
    return (1 - after) * (z_t - t * v) + after * kept * (z_t + (1 - t) * v)


def _velocity(field: VelocityField, z_t: Tensor, step: int, t: float, guidance: Guidance) -> Tensor:
    v1, v0 = field.velocities(z_t, step, guided=guidance.at(t))
    return v1 if v0 is None else guidance.combine(v1, v0)


class _LatentEdit(System):
    """Edits the latents of sources, given descriptions of source and target."""

    def __init__(
        self,
        unison: Unison,
        start: float,
        steps: int | None,
        guidance_scale: float | None,
        seed: int,
        settings: Mapping[str, float],
    ) -> None:
        variant = unison.variant
        steps = max(variant.steps, LEAST_STEPS) if steps is None else steps
        scale = variant.guidance_scale if guidance_scale is None else guidance_scale
        self.sample_rate = variant.sample_rate
        self._unison, self._seed, self._times = unison, seed, times_from(steps, start)
        self._guidance = Guidance(scale=scale)
        self._settings = {"seed": seed, "steps": steps, "guidance_scale": scale, **settings}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Weights and settings."""
        return {"weights": fingerprint(self._unison), **self._settings}

    def takes(self, item: TestItem) -> bool:
        """Whether it is an edit that can be described."""
        return bool(item.source) and item.task in DESCRIBED

    def origin(self, item: TestItem) -> Origin:
        """An edit of the item's source."""
        return Origin.of_edit(item.task, self._unison.variant.name, item.source)

    @torch.no_grad()
    def generate(self, test_set: TestSet, items: Sequence[TestItem]) -> list[Tensor]:
        """As long as their sources, as the codec decodes them.

        Raises:
            InputError: An item cannot be described, or its source not be used.
        """
        unison = self._unison
        requests = [
            prepare(
                unison.variant,
                unison.codec,
                item.instruction,
                ItemInputs(
                    source=test_set.path(item, "source"),
                    seed=derived_seed(self._seed, item.id),
                    task=item.task,
                ),
            )
            for item in items
        ]
        described = [describe_edit(item) for item in items]
        made: dict[int, Tensor] = {}
        # Rows of one length only: the model's latents are not padded here, so a row's result does
        # not depend on its neighbors.
        for frames in {request.layout.frames for request in requests}:
            rows = [k for k, request in enumerate(requests) if request.layout.frames == frames]
            some = [requests[k] for k in rows]
            z = self._encode(some)
            if len(self._times) > 1:
                z = self._edit(z, [described[k] for k in rows], some)
            for k, latent in zip(rows, z, strict=True):
                layout, sound = requests[k].layout, decode(unison.codec, latent[None])[0]
                made[k] = sound[layout.first : layout.first + layout.samples] / layout.gain
        return [made[k] for k in range(len(items))]

    def _edit(
        self, z: Tensor, described: Sequence[Described], requests: Sequence[Request]
    ) -> Tensor:
        """Edit the latents of sources of one length, (B, C, T')."""
        raise NotImplementedError

    def _field(self, instructions: Sequence[str], z: Tensor) -> VelocityField:
        """Generation's: z_s and m are 0."""
        unison = self._unison
        text = unison.text_encoder.encode(instructions).to(z.device)
        return PreparedRun(
            unison.backbone,
            torch.zeros_like(z),
            z.new_zeros(len(z), 1, z.shape[-1]),
            text.hidden_states if unison.variant.read_layers else None,
            text.mask,
            times=self._times[:-1],
            penultimate=text.penultimate,
        )

    def _noise(self, requests: Sequence[Request], z: Tensor, count: int) -> list[Tensor]:
        """`count` noises (B, C, T'), each row from its item's own seed."""
        rows = [
            torch.randn(
                (count, *z.shape[1:]), generator=torch.Generator().manual_seed(request.seed)
            )
            for request in requests
        ]
        return list(torch.stack(rows, dim=1).to(z.device))  # each (B, C, T')

    def _encode(self, requests: Sequence[Request]) -> Tensor:
        """The sources' latents, (B, C, T'); each is encoded by itself, as `Unison` does."""
        latents = []
        for request in requests:
            source = request.layout.source
            assert source is not None, "an edit has a source"
            read = dithered(self._unison.variant, source[None], [request.seed])
            latents.append(self._unison.codec.encode(read.to(self._unison.device)).float())
        return torch.cat(latents)


class SDEdit(_LatentEdit):
    """The source noised and made anew under the target's description (Meng et al. 2022).

    Args:
        unison: Backbone, codec and text encoder.
        strength: t_0 from 0, the source's latent itself, to 1, plain generation.
        steps: Of the whole schedule; by default the variant's, but at least `LEAST_STEPS`, since
            these are Euler's. `strength` of them are taken.
        guidance_scale: By default the variant's for generation.
        seed: Of the noise, together with an item's id.

    Raises:
        InputError: A number is out of its range.
    """

    name = "sdedit"

    def __init__(
        self,
        unison: Unison,
        *,
        strength: float = START,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
    ) -> None:
        settings = {"strength": strength}
        super().__init__(unison, strength, steps, guidance_scale, seed, settings)

    def _edit(
        self, z: Tensor, described: Sequence[Described], requests: Sequence[Request]
    ) -> Tensor:
        (eps,) = self._noise(requests, z, 1)
        field = self._field([each.target for each in described], z)
        return sdedit(field, z, eps, self._times, self._guidance)


class Zeta(_LatentEdit):
    """The source inverted under its description, made under the target's (Manor & Michaeli 2024).

    Args:
        unison: Backbone, codec and text encoder.
        start: t at which editing begins, from 0, the source's latent itself, to 1.
        steps: Of the whole schedule; by default the variant's, but at least `LEAST_STEPS`. `start`
            of them are taken, each with a velocity for the source and one for the target.
        source_guidance_scale: Under which the source is inverted.
        guidance_scale: Under which the target is made; by default the variant's for generation.
        seed: Of the noises, together with an item's id.

    Raises:
        InputError: A number is out of its range.
    """

    name = "zeta"

    def __init__(
        self,
        unison: Unison,
        *,
        start: float = START,
        steps: int | None = None,
        source_guidance_scale: float = SOURCE_GUIDANCE,
        guidance_scale: float | None = None,
        seed: int = 0,
    ) -> None:
        settings = {"start": start, "source_guidance_scale": source_guidance_scale}
        super().__init__(unison, start, steps, guidance_scale, seed, settings)
        self._source_guidance = Guidance(scale=source_guidance_scale)

    def _edit(
        self, z: Tensor, described: Sequence[Described], requests: Sequence[Request]
    ) -> Tensor:
        source = self._field([each.source for each in described], z)
        target = self._field([each.target for each in described], z)
        eps = self._noise(requests, z, len(self._times) - 1)
        return zeta(source, target, z, eps, self._times, self._source_guidance, self._guidance)
