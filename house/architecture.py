"""The house checkpoint's networks: Stable Diffusion 1.x's layout at about a hundredth of its size."""

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from house import shapes
from house.shapes import SIZE

# diffusers and transformers load their classes lazily, which hides the classes' attributes from mypy.
Network = Any

TOKENIZER_FOLDER = Path(__file__).parent.parent / "gpu_worker" / "assets" / "clip_tokenizer"
SCALING_FACTOR = 0.18215
LATENT_CHANNELS = 4
LATENT_SIZE = SIZE // 8
TEXT_WIDTH = 64
TEXT_HEADS = 1  # real CLIP's rule: one head for every 64 channels
UNET_HEADS = 8  # as in Stable Diffusion 1.5, whose config calls this number "attention_head_dim"
VAE_NORM_GROUPS = 4
VOCABULARY_SIZE = 49408
MAX_TOKENS = 77
START_TOKEN, END_TOKEN = 49406, 49407

# What tensors cannot show; a loader reads it from the single file's header.
METADATA = {
    "sdfleet.unet_attention_heads": str(UNET_HEADS),
    "sdfleet.vae_norm_num_groups": str(VAE_NORM_GROUPS),
    "sdfleet.text_attention_heads": str(TEXT_HEADS),
    "sdfleet.sample_size": str(LATENT_SIZE),
}


def build_vae() -> Network:
    """An autoencoder of factor 8, 64 px pictures to ``(4, 8, 8)`` latents, 0.7 million parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=VAE_NORM_GROUPS,  # more would leave one channel per group, which trains badly
        sample_size=SIZE,
        scaling_factor=SCALING_FACTOR,
    )


def build_text_encoder() -> Network:
    """A two-layer CLIP text model over the whole CLIP vocabulary."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        projection_dim=TEXT_WIDTH,
        bos_token_id=START_TOKEN,
        eos_token_id=END_TOKEN,
        pad_token_id=END_TOKEN,
    )
    return CLIPTextModel(config)


def build_unet() -> Network:
    """A UNet of four levels on 8x8 latents, 4.4 million parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        block_out_channels=(64, 64, 96, 96),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=UNET_HEADS,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )


def build_attribute_heads() -> nn.ModuleList:
    """Linear readers of foreground, shape and background; only the text encoder's own stage uses them."""
    sizes = (len(shapes.COLOUR_NAMES), len(shapes.SHAPES), len(shapes.BACKGROUND_NAMES))
    return nn.ModuleList(nn.Linear(TEXT_WIDTH, size) for size in sizes)


def build_scheduler() -> Any:
    """Stable Diffusion's own noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def load_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, from the repository's own files."""
    return CLIPTokenizer.from_pretrained(TOKENIZER_FOLDER, local_files_only=True)


def assemble(vae: Network, text_encoder: Network, unet: Network) -> Any:
    """A StableDiffusionPipeline of the three networks; there is no safety checker, since shapes need none."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
