"""What a request says of a sampler beside its name: how much noise comes back on the way, checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpu_worker.infotext import exact
from gpu_worker.limits import flag, number, whole

NAMES = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "s_min_uncond")
# Settings of the WebUI that stand in where a request says nothing.
SETTINGS = frozenset(
    {
        *NAMES[1:],
        *("eta_ancestral", "eta_ddim", "eta_noise_seed_delta", "s_min_uncond_all", "skip_early_cond"),
    }
)
ANCESTRAL_ETA = 1.0
DDIM_ETA = 0.0


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """Names and defaults are the WebUI's; `eta` None is the sampler's own.

    `seed_delta` is added to the seed of the noise that comes back on the way.
    """

    eta: float | None = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    s_min_uncond: float = 0.0
    s_min_uncond_all: bool = False
    skip_early_cond: float = 0.0
    seed_delta: int = 0


DEFAULTS = SamplerOptions()


def parse_options(document: Mapping[str, Any], settings: Mapping[str, Any], is_ddim: bool) -> SamplerOptions:
    """Reads the numbers of `document`, or of its ``override_settings``; raises `RequestFault`.

    ``s_tmax`` 0, none and Infinity mean without limit, as in the WebUI.
    """
    eta_setting = "eta_ddim" if is_ddim else "eta_ancestral"
    eta = _first(document.get("eta"), settings.get(eta_setting))
    found = {name: _first(document.get(name), settings.get(name)) for name in NAMES[1:]}
    limitless = found["s_tmax"] in (None, 0, math.inf, "Infinity", "inf")
    return SamplerOptions(
        eta=None if eta is None else number("eta", eta),
        s_churn=number("s_churn", found["s_churn"]),
        s_tmin=number("s_tmin", found["s_tmin"]),
        s_tmax=math.inf if limitless else number("s_tmax", found["s_tmax"]),
        s_noise=number("s_noise", found["s_noise"]),
        s_min_uncond=number("s_min_uncond", found["s_min_uncond"]),
        s_min_uncond_all=flag("s_min_uncond_all", settings.get("s_min_uncond_all")),
        skip_early_cond=number("skip_early_cond", settings.get("skip_early_cond")),
        seed_delta=whole("eta_noise_seed_delta", settings.get("eta_noise_seed_delta")),
    )


def fields(options: SamplerOptions, default_eta: float | None, has_churn: bool) -> dict[str, object]:
    """What an infotext says of options that have an effect and are not the default."""
    eta = "Eta DDIM" if default_eta == DDIM_ETA else "Eta"
    names = {eta: options.eta if default_eta is not None and options.eta != default_eta else None}
    if has_churn and options.s_churn > 0:
        names["Sigma churn"] = options.s_churn
        names["Sigma tmin"] = options.s_tmin or None
        names["Sigma tmax"] = options.s_tmax if math.isfinite(options.s_tmax) else None
    names["Sigma noise"] = options.s_noise if options.s_noise != 1 else None
    names["NGMS"] = options.s_min_uncond or None
    names["Skip Early CFG"] = options.skip_early_cond or None
    names["ENSD"] = options.seed_delta or None
    written = {name: None if value is None else exact(value) for name, value in names.items()}
    every = "True" if options.s_min_uncond_all and options.s_min_uncond else None
    return {**written, "NGMS all steps": every}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
