"""The types of checkpoints, which creating a checkpoint and naming the models of a job have in common."""

CHECKPOINT_TYPES = (
    "Stable-diffusion",
    "embeddings",
    "Lora",
    "hypernetworks",
    "ControlNet",
    "VAE",
    "Upscaler",
    "FaceRestore",
    "Segmentation",
    "Interrogator",
    "Annotator",
)
