"""Samplers in the noise levels of Karras et al., with the options that diffusers' schedulers lack.

Each is a generator: it yields latents and the level where the model is to look at them, is sent the latents
(what lies outside of a mask may have been put back) and the clean picture that the model sees in them, and
returns the finished latents. Latents of level s are ``clean + s * noise``. The formulas are those of the
papers named below, with the meanings that the options have in k-diffusion, the WebUI's library.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import pairwise
from math import exp, expm1, inf, log, sqrt

import numpy as np
import torch

from gpu_worker.sampler_options import ANCESTRAL_ETA, SamplerOptions

Latents = torch.Tensor
Asked = tuple[Latents, float]
Seen = tuple[Latents, Latents]
Work = Generator[Asked, Seen, Latents]
# Fresh normal noise in the shape of the latents.
Noise = Callable[[], Latents]
Algorithm = Callable[[Latents, Sequence[float], SamplerOptions, Noise], Work]

MOST_CHURN = sqrt(2) - 1
LMS_ORDER = 4


def euler(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """Algorithm 2 of https://arxiv.org/abs/2206.00364 without its correction."""
    churned = _churned(sigmas, options)
    for step, (sigma, after) in enumerate(zip(churned, sigmas[1:], strict=True)):
        x, clean = yield x, sigma
        x = x + (x - clean) / sigma * (after - sigma)
        x = _churn(x, after, churned[step + 1 :], options, noise)
    return x


def heun(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """Algorithm 2 of https://arxiv.org/abs/2206.00364."""
    churned = _churned(sigmas, options)
    for step, (sigma, after) in enumerate(zip(churned, sigmas[1:], strict=True)):
        x, clean = yield x, sigma
        slope = (x - clean) / sigma
        ahead = x + slope * (after - sigma)
        if after > 0:
            ahead, clean = yield ahead, after
            ahead = x + (slope + (ahead - clean) / after) / 2 * (after - sigma)
        x = _churn(ahead, after, churned[step + 1 :], options, noise)
    return x


def dpm_2(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """Two evaluations a step, the second in the middle: algorithm 2 with DPM-Solver-2's midpoint."""
    churned = _churned(sigmas, options)
    for step, (sigma, after) in enumerate(zip(churned, sigmas[1:], strict=True)):
        x = yield from _midpoint(x, sigma, after)
        x = _churn(x, after, churned[step + 1 :], options, noise)
    return x


def euler_ancestral(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """Steps to below the next level, and noise back up to it: https://arxiv.org/abs/2010.02502."""
    for sigma, after in pairwise(sigmas):
        down, up = _ancestral(sigma, after, _eta(options))
        x, clean = yield x, sigma
        x = _more(x + (x - clean) / sigma * (down - sigma), up, options, noise)
    return x


def dpm_2_ancestral(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """`dpm_2` with ancestral noise."""
    for sigma, after in pairwise(sigmas):
        down, up = _ancestral(sigma, after, _eta(options))
        x = yield from _midpoint(x, sigma, down)
        x = _more(x, up, options, noise)
    return x


def dpmpp_2s_ancestral(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """DPM-Solver++(2S) of https://arxiv.org/abs/2211.01095 with ancestral noise."""
    for sigma, after in pairwise(sigmas):
        down, up = _ancestral(sigma, after, _eta(options))
        x, clean = yield x, sigma
        if down == 0:
            x = clean
        else:
            middle = sqrt(sigma * down)
            _, clean = yield _towards(x, clean, sigma, middle), middle
            x = _towards(x, clean, sigma, down)
        x = _more(x, up, options, noise)
    return x


def lms(x: Latents, sigmas: Sequence[float], _options: SamplerOptions, _noise: Noise) -> Work:
    """The linear multistep method (Adams and Bashforth) over levels."""
    slopes: list[Latents] = []
    for step, (sigma, after) in enumerate(pairwise(sigmas)):
        x, clean = yield x, sigma
        slopes = [*slopes, (x - clean) / sigma][-LMS_ORDER:]
        known = sigmas[step - len(slopes) + 1 : step + 1]
        for place, slope in enumerate(slopes):
            x = x + slope * _lagrange_integral(known, place, sigma, after)
    return x


def dpmpp_2m(x: Latents, sigmas: Sequence[float], _options: SamplerOptions, _noise: Noise) -> Work:
    """DPM-Solver++(2M) of https://arxiv.org/abs/2211.01095."""
    before, last = None, 0.0
    for sigma, after in pairwise(sigmas):
        x, clean = yield x, sigma
        width = _width(sigma, after)
        if before is None or after == 0:
            x = _towards(x, clean, sigma, after)
        else:
            ratio = last / width
            x = _towards(x, clean + (clean - before) / (2 * ratio), sigma, after)
        before, last = clean, width
    return x


def dpmpp_sde(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """SDE-DPM-Solver++ with a second evaluation in the middle of each step."""
    for sigma, after in pairwise(sigmas):
        x, clean = yield x, sigma
        if after == 0:
            x = clean
            continue
        middle = sqrt(sigma * after)
        down, up = _ancestral(sigma, middle, _eta(options))
        half = _more(_towards(x, clean, sigma, down), up, options, noise)
        _, clean = yield half, middle
        down, up = _ancestral(sigma, after, _eta(options))
        x = _more(_towards(x, clean, sigma, down), up, options, noise)
    return x


def dpmpp_2m_sde(
    x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise, by_heun: bool = False
) -> Work:
    """SDE-DPM-Solver++(2M) of https://arxiv.org/abs/2211.01095."""
    eta, before, last = _eta(options), None, 0.0
    for sigma, after in pairwise(sigmas):
        x, clean = yield x, sigma
        if after == 0:
            x = clean
            continue
        width = _width(sigma, after)
        share = -expm1(-width * (1 + eta))
        x = after / sigma * exp(-eta * width) * x + share * clean
        if before is not None:
            factor = 1 - share / (width * (1 + eta)) if by_heun else share / 2
            x = x + factor * (width / last) * (clean - before)
        x = _more(x, after * sqrt(-expm1(-2 * eta * width)), options, noise)
        before, last = clean, width
    return x


def dpmpp_3m_sde(x: Latents, sigmas: Sequence[float], options: SamplerOptions, noise: Noise) -> Work:
    """SDE-DPM-Solver++(3M): the same with the pictures of two steps before."""
    eta = _eta(options)
    cleans: list[Latents] = []
    widths: list[float] = []
    for sigma, after in pairwise(sigmas):
        x, clean = yield x, sigma
        if after == 0:
            x = clean
            continue
        width = _width(sigma, after)
        whole = width * (1 + eta)
        second = expm1(-whole) / whole + 1
        x = exp(-whole) * x - expm1(-whole) * clean
        if len(cleans) == 2:
            near, far = widths[1] / width, widths[0] / width
            first, older = (clean - cleans[1]) / near, (cleans[1] - cleans[0]) / far
            curve = (first - older) / (near + far)
            x = x + second * (first + curve * near) - (second / whole - 0.5) * curve
        elif cleans:
            x = x + second * (clean - cleans[0]) * (width / widths[0])
        x = _more(x, after * sqrt(-expm1(-2 * eta * width)), options, noise)
        cleans, widths = [*cleans, clean][-2:], [*widths, width][-2:]
    return x


dpmpp_2m_sde_heun: Algorithm = partial(dpmpp_2m_sde, by_heun=True)


def _midpoint(x: Latents, sigma: float, after: float) -> Generator[Asked, Seen, Latents]:
    x, clean = yield x, sigma
    slope = (x - clean) / sigma
    if after == 0:
        return x + slope * (after - sigma)
    middle = sqrt(sigma * after)
    half, clean = yield x + slope * (middle - sigma), middle
    return x + (half - clean) / middle * (after - sigma)


def _lagrange_integral(known: Sequence[float], place: int, start: float, end: float) -> float:
    """The integral of the polynomial that is 1 at ``known[place]`` and 0 at the others."""
    others = [sigma for index, sigma in enumerate(known) if index != place]
    basis = np.poly1d(others, r=True) if others else np.poly1d([1.0])
    whole = basis.integ()
    return float((whole(end) - whole(start)) / basis(known[place]))


def _eta(options: SamplerOptions) -> float:
    return ANCESTRAL_ETA if options.eta is None else options.eta


def _ancestral(sigma: float, after: float, eta: float) -> tuple[float, float]:
    """The level to go down to, and the deviation of the noise that leads back up to `after`."""
    up = min(after, eta * sqrt(after**2 * max(sigma**2 - after**2, 0) / sigma**2))
    return sqrt(max(after**2 - up**2, 0)), up


def _width(sigma: float, after: float) -> float:
    """The step's width in the solvers' time, which is the negative logarithm of the level."""
    return log(sigma) - log(after) if after > 0 else inf


def _towards(x: Latents, clean: Latents, sigma: float, after: float) -> Latents:
    """The exact solution from `sigma` to `after` for a model that goes on seeing `clean`."""
    return clean + after / sigma * (x - clean)


def _more(x: Latents, deviation: float, options: SamplerOptions, noise: Noise) -> Latents:
    return x + noise() * (deviation * options.s_noise) if deviation > 0 else x


def _churned(sigmas: Sequence[float], options: SamplerOptions) -> list[float]:
    """The levels to which the noise is raised before each step."""
    gamma = min(options.s_churn / (len(sigmas) - 1), MOST_CHURN) if len(sigmas) > 1 else 0.0
    return [
        sigma * (1 + gamma) if options.s_tmin <= sigma <= options.s_tmax else sigma for sigma in sigmas[:-1]
    ]


def _churn(x: Latents, sigma: float, rest: Sequence[float], options: SamplerOptions, noise: Noise) -> Latents:
    """Raises latents of level `sigma` to that of the next evaluation."""
    return _more(x, sqrt(max(rest[0] ** 2 - sigma**2, 0)), options, noise) if rest else x
