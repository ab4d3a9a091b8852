"""Stable Diffusion WebUI's sampler and schedule names, and the diffusers schedulers that do what they say."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from gpu_worker.errors import RequestFault

AUTOMATIC = "Automatic"
SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler: its scheduler class, its fixed options, and the schedule that ``Automatic`` means."""

    scheduler: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    automatic: str = "Uniform"


@dataclass(frozen=True, slots=True)
class Sampling:
    """A checked choice: the sampler's name, the schedule asked for, and the one that is used."""

    sampler: str
    asked_schedule: str
    schedule: str


_SDE = {"algorithm_type": "sde-dpmsolver++"}
_TRAINED_STEPS = {"timestep_spacing": "leading", "steps_offset": 1}

# Names and automatic schedules: modules/sd_samplers_kdiffusion.py and sd_samplers_timesteps.py of the WebUI.
SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": Sampler(DPMSolverMultistepScheduler, {}, "Karras"),
    "DPM++ SDE": Sampler(DPMSolverSinglestepScheduler, _SDE | {"lower_order_final": True}, "Karras"),
    "DPM++ 2M SDE": Sampler(DPMSolverMultistepScheduler, _SDE, "Exponential"),
    "DPM++ 2M SDE Heun": Sampler(DPMSolverMultistepScheduler, _SDE | {"solver_type": "heun"}, "Exponential"),
    "DPM++ 3M SDE": Sampler(DPMSolverMultistepScheduler, _SDE | {"solver_order": 3}, "Exponential"),
    "Euler a": Sampler(EulerAncestralDiscreteScheduler),
    "Euler": Sampler(EulerDiscreteScheduler),
    "LMS": Sampler(LMSDiscreteScheduler),
    "Heun": Sampler(HeunDiscreteScheduler),
    "DPM2": Sampler(KDPM2DiscreteScheduler, {}, "Karras"),
    "DPM2 a": Sampler(KDPM2AncestralDiscreteScheduler, {}, "Karras"),
    "DDIM": Sampler(DDIMScheduler, _TRAINED_STEPS),
    "PLMS": Sampler(PNDMScheduler, _TRAINED_STEPS | {"skip_prk_steps": True}),
    "UniPC": Sampler(UniPCMultistepScheduler),
    "LCM": Sampler(LCMScheduler, {"timestep_spacing": "leading", "original_inference_steps": 50}),
}

# A schedule is an option of the scheduler; "Uniform" is what each scheduler does by itself.
SCHEDULES: dict[str, dict[str, Any]] = {
    "Uniform": {},
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
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
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_sde": "DPM++ SDE",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_3m_sde": "DPM++ 3M SDE",
}
SCHEDULE_ALIASES = {"normal": "uniform", "sgm_uniform": "sgm uniform", "": "automatic"}


def choose_sampling(sampler_name: str, schedule_name: str | None) -> Sampling:
    """Finds sampler and schedule by the WebUI's names; raises `RequestFault` that lists the known ones.

    ``DPM++ 2M Karras`` names both, as the WebUI did before 1.9; an explicit schedule then has the last word.
    """
    sampler_text, schedule_in_name = _split_schedule(sampler_name.strip())
    wanted = sampler_text.casefold()
    names = {name.casefold(): name for name in SAMPLERS} | SAMPLER_ALIASES
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
    for schedule in ("SGM Uniform", "Exponential", "Karras"):
        if name.casefold().endswith(" " + schedule.casefold()):
            return name[: -len(schedule) - 1].rstrip(), schedule
    return name, ""


def _schedule(name: str) -> str:
    folded = name.strip().casefold()
    folded = SCHEDULE_ALIASES.get(folded, folded)
    if folded == AUTOMATIC.casefold():
        return AUTOMATIC
    for known in SCHEDULES:
        if known.casefold() == folded:
            return known
    raise RequestFault(
        f"scheduler {name[:SHOWN_LENGTH]!r} is not known; this worker has {AUTOMATIC}, {', '.join(SCHEDULES)}"
    )


def _check_pair(sampler: str, schedule: str) -> None:
    parameters = inspect.signature(SAMPLERS[sampler].scheduler.__init__).parameters
    missing = [option for option in SCHEDULES[schedule] if option not in parameters]
    if missing:
        raise RequestFault(f"scheduler {schedule!r} does not go with sampler_name {sampler!r}")


def make_scheduler(sampling: Sampling, base_config: Mapping[str, Any]) -> Any:
    """A fresh scheduler (they hold state) on the checkpoint's noise schedule and prediction type."""
    sampler = SAMPLERS[sampling.sampler]
    config = {
        key: base_config[key]
        for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    }
    parameters = inspect.signature(sampler.scheduler.__init__).parameters
    for key in ("clip_sample", "set_alpha_to_one", "rescale_betas_zero_snr"):
        if key in parameters and key in base_config:
            config[key] = base_config[key]
    return sampler.scheduler(**config | dict(sampler.options) | SCHEDULES[sampling.schedule])
