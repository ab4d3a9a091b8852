"""Chooses where and in what precision this worker computes."""

import os
from dataclasses import dataclass, replace

import torch

from gpu_worker.config import ConfigError

CPU_SHARE_FOR_MODELS = 0.4
RAM_SHARE_FOR_RESTING_MODELS = 0.4
GPU_SHARE_FOR_MODELS = 0.6
# A CPU gains from batches only while pictures are small: sixteen of 64x64, one from 256x256 on.
CPU_BATCH_PIXELS = 16 * 64 * 64
# A picture of a megapixel takes SDXL one to two gigabytes beside its weights.
GPU_BYTES_FOR_A_PIXEL = 3000
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Device:
    """A compute device: `dtype` of UNet and text encoders, `vae_dtype`, `memory_bytes` in all.

    `batch_pixels` is how many pixels of pictures are made at once; `is_compiled` asks for ``torch.compile``.
    """

    torch_device: torch.device
    name: str
    dtype: torch.dtype
    vae_dtype: torch.dtype
    memory_bytes: int
    batch_pixels: int = CPU_BATCH_PIXELS
    is_compiled: bool = False

    @property
    def kind(self) -> str:
        """``cuda`` or ``cpu``."""
        return self.torch_device.type

    @property
    def is_cuda(self) -> bool:
        """Whether it is an NVIDIA GPU."""
        return self.kind == "cuda"

    @property
    def default_instance_type(self) -> str:
        """The instance type of a worker that names none."""
        return "local.gpu" if self.is_cuda else "local.cpu"

    @property
    def default_cache_bytes(self) -> int:
        """How many bytes of models may stay in memory when the settings do not say."""
        return int(self.memory_bytes * (GPU_SHARE_FOR_MODELS if self.is_cuda else CPU_SHARE_FOR_MODELS))

    @property
    def default_ram_bytes(self) -> int:
        """How many bytes of models that left a GPU may stay in RAM; a CPU's models are there anyway."""
        return int(_ram_bytes() * RAM_SHARE_FOR_RESTING_MODELS) if self.is_cuda else 0


def choose_device(precision: str = "auto", batch_pixels: int | None = None, compiled: bool = False) -> Device:
    """CUDA in fp16 when there is a GPU, else the CPU in fp32; `precision` names another.

    The VAE stays in fp32, because SDXL's overflows in fp16 and decoding is a small part of a job.
    """
    device = _found()
    dtype = PRECISIONS.get(precision, device.dtype)
    if device.is_cuda and dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
        raise ConfigError(f"WORKER_PRECISION is bf16, which {device.name} does not compute: use fp16")
    pixels = batch_pixels or device.batch_pixels
    return replace(device, dtype=dtype, batch_pixels=pixels, is_compiled=compiled)


def _found() -> Device:
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(
            torch_device=torch.device("cuda", 0),
            name=properties.name,
            dtype=torch.float16,
            vae_dtype=torch.float32,
            memory_bytes=properties.total_memory,
            batch_pixels=properties.total_memory // GPU_BYTES_FOR_A_PIXEL,
        )
    _leave_a_core()
    return Device(torch.device("cpu"), _processor_name(), torch.float32, torch.float32, _ram_bytes())


def _ram_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _leave_a_core() -> None:
    """Let PyTorch use one core less than there are, unless OMP_NUM_THREADS says how many.

    Its threads wait for one another at every operation: where each has a core and anything else runs beside
    them, all crawl. Seen on two cores with the house checkpoint: 1.7 to 2.2 pictures/s with one thread, 1.4
    to 1.7 with two, under 0.2 with two on a busy machine.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))


def _processor_name() -> str:
    return f"CPU, {torch.get_num_threads()} threads"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed for want of memory, on the GPU or in the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_lost_device(error: BaseException) -> bool:
    """Whether CUDA can no longer be used by this process (its errors are sticky)."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
