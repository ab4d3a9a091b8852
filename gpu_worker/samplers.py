"""Stable Diffusion WebUI's sampler and schedule names, and what makes pictures as they say."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers import DDIMScheduler, LCMScheduler, PNDMScheduler, UniPCMultistepScheduler

from gpu_worker import k_samplers
from gpu_worker.errors import RequestFault
from gpu_worker.k_scheduler import KScheduler
from gpu_worker.sampler_options import ANCESTRAL_ETA, DDIM_ETA, DEFAULTS, SamplerOptions
from gpu_worker.schedules import SCHEDULE_NAMES

AUTOMATIC = "Automatic"
SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler of `k_samplers`, or a scheduler class of diffusers with its fixed options.

    `automatic` is the schedule that ``Automatic`` means; `order` the evaluations of a step; `eta` the
    default of that option, None where there is no such option.
    """

    algorithm: Any = None
    order: int = 1
    drops_next_to_last: bool = False
    scheduler: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    automatic: str = "Uniform"
    eta: float | None = None
    has_churn: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """A checked choice: the sampler's name, the schedule asked for, and the one that is used."""

    sampler: str
    asked_schedule: str
    schedule: str


_TRAINED_STEPS = {"timestep_spacing": "leading", "steps_offset": 1}
_ETA = ANCESTRAL_ETA

# Names and automatic schedules: modules/sd_samplers_kdiffusion.py and sd_samplers_timesteps.py of the WebUI.
SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": Sampler(k_samplers.dpmpp_2m, automatic="Karras"),
    "DPM++ SDE": Sampler(k_samplers.dpmpp_sde, 2, automatic="Karras", eta=_ETA),
    "DPM++ 2M SDE": Sampler(k_samplers.dpmpp_2m_sde, automatic="Exponential", eta=_ETA),
    "DPM++ 2M SDE Heun": Sampler(k_samplers.dpmpp_2m_sde_heun, automatic="Exponential", eta=_ETA),
    "DPM++ 2S a": Sampler(k_samplers.dpmpp_2s_ancestral, 2, automatic="Karras", eta=_ETA),
    "DPM++ 3M SDE": Sampler(k_samplers.dpmpp_3m_sde, 1, True, automatic="Exponential", eta=_ETA),
    "Euler a": Sampler(k_samplers.euler_ancestral, eta=_ETA),
    "Euler": Sampler(k_samplers.euler, has_churn=True),
    "LMS": Sampler(k_samplers.lms),
    "Heun": Sampler(k_samplers.heun, 2, has_churn=True),
    "DPM2": Sampler(k_samplers.dpm_2, 2, True, automatic="Karras", has_churn=True),
    "DPM2 a": Sampler(k_samplers.dpm_2_ancestral, 2, True, automatic="Karras", eta=_ETA),
    "DDIM": Sampler(scheduler=DDIMScheduler, options=_TRAINED_STEPS, eta=DDIM_ETA),
    "PLMS": Sampler(scheduler=PNDMScheduler, options=_TRAINED_STEPS | {"skip_prk_steps": True}),
    "UniPC": Sampler(scheduler=UniPCMultistepScheduler),
    "LCM": Sampler(
        scheduler=LCMScheduler, options={"timestep_spacing": "leading", "original_inference_steps": 50}
    ),
}
# Those of the WebUI whose steps depend on what they see, so that no batch could share them.
NOT_DONE = {
    "dpm fast": "it makes steps of three evaluations; DPM++ 2M is its successor",
    "dpm adaptive": "it chooses its steps by what it sees in each picture; DPM++ 2M is its successor",
    "restart": "it goes back in its schedule; Heun is nearest to it",
    "ddim cfg++": "guidance of that kind is not done; DDIM is nearest to it",
}

# A schedule is an option of diffusers' schedulers; "Uniform" is what each does by itself.
SCHEDULES: dict[str, dict[str, Any]] = {
    "Uniform": {},
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "Beta": {"use_beta_sigmas": True},
    "SGM Uniform": {"timestep_spacing": "trailing"},
}
SAMPLER_ALIASES = {
    "k_euler": "Euler",
    "k_euler_a": "Euler a",
    "k_euler_ancestral": "Euler a",
    "k_lms": "LMS",
    "k_heun": "Heun",
    "k_dpm_2": "DPM2",
    "k_dpm_2_a": "DPM2 a",
    "k_dpmpp_2s_a": "DPM++ 2S a",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_sde": "DPM++ SDE",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "k_dpmpp_3m_sde": "DPM++ 3M SDE",
}
SCHEDULE_ALIASES = {
    "sgm_uniform": "sgm uniform",
    "kl_optimal": "kl optimal",
    "align_your_steps": "align your steps",
    "": "automatic",
}


def choose_sampling(sampler_name: str, schedule_name: str | None) -> Sampling:
    """Finds sampler and schedule by the WebUI's names; raises `RequestFault` that lists the known ones.

    ``DPM++ 2M Karras`` names both, as the WebUI did before 1.9; an explicit schedule then has the last word.
    """
    sampler_text, schedule_in_name = _split_schedule(sampler_name.strip())
    wanted = sampler_text.casefold()
    names = {name.casefold(): name for name in SAMPLERS} | SAMPLER_ALIASES
    if wanted in NOT_DONE:
        raise RequestFault(f"sampler_name {sampler_text!r} is not done here: {NOT_DONE[wanted]}")
    if wanted not in names:
        raise RequestFault(
            f"sampler_name {sampler_name[:SHOWN_LENGTH]!r} is not known; this worker has "
            f"{', '.join(SAMPLERS)}"
        )
    sampler = names[wanted]
    asked = _schedule(schedule_name or "")
    if asked == AUTOMATIC and schedule_in_name:
        asked = _schedule(schedule_in_name)
    used = SAMPLERS[sampler].automatic if asked == AUTOMATIC else asked
    _check_pair(sampler, used)
    return Sampling(sampler, asked, used)


def _split_schedule(name: str) -> tuple[str, str]:
    for schedule in ("SGM Uniform", "Polyexponential", "Exponential", "Karras"):
        if name.casefold().endswith(" " + schedule.casefold()):
            return name[: -len(schedule) - 1].rstrip(), schedule
    return name, ""


def _schedule(name: str) -> str:
    folded = name.strip().casefold()
    folded = SCHEDULE_ALIASES.get(folded, folded)
    if folded == AUTOMATIC.casefold():
        return AUTOMATIC
    for known in SCHEDULE_NAMES:
        if known.casefold() == folded:
            return known
    raise RequestFault(
        f"scheduler {name[:SHOWN_LENGTH]!r} is not known; this worker has {AUTOMATIC}, "
        f"{', '.join(SCHEDULE_NAMES)}"
    )


def _check_pair(sampler: str, schedule: str) -> None:
    """Every schedule goes with the samplers over levels; diffusers' own have what their options say."""
    chosen = SAMPLERS[sampler]
    if chosen.algorithm is not None:
        return
    options = SCHEDULES.get(schedule)
    parameters = inspect.signature(chosen.scheduler.__init__).parameters
    if options is None or any(option not in parameters for option in options):
        raise RequestFault(f"scheduler {schedule!r} does not go with sampler_name {sampler!r}")


def make_scheduler(
    sampling: Sampling,
    base_config: Mapping[str, Any],
    options: SamplerOptions = DEFAULTS,
    is_xl: bool = False,
) -> Any:
    """A fresh scheduler (they hold state) on the checkpoint's noise schedule and prediction type."""
    sampler = SAMPLERS[sampling.sampler]
    config = {
        key: base_config[key]
        for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    }
    if sampler.algorithm is not None:
        config["rescale_betas_zero_snr"] = base_config.get("rescale_betas_zero_snr", False)
        return KScheduler(
            sampler.algorithm,
            sampler.order,
            sampling.schedule,
            options,
            config,
            is_xl=is_xl,
            drops_next_to_last=sampler.drops_next_to_last,
        )
    parameters = inspect.signature(sampler.scheduler.__init__).parameters
    for key in ("clip_sample", "set_alpha_to_one", "rescale_betas_zero_snr"):
        if key in parameters and key in base_config:
            config[key] = base_config[key]
    return sampler.scheduler(**config | dict(sampler.options) | SCHEDULES[sampling.schedule])
