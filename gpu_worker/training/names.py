"""The one table of the names that config_params may use: the documented ones and kohya-ss/sd-scripts'."""

from collections.abc import Mapping

from gpu_worker.training.settings import (
    NO_EFFECT,
    PRECISIONS,
    READ_BEFORE,
    SAVE_PRECISIONS,
    SCHEDULERS,
    Read,
    choice,
    flag,
    inverted,
    number,
    optimizer,
    positive,
    size,
    text,
    texts,
    whole,
)

STEPS = whole(1, 1_000_000)
EVERY = whole(0, 1_000_000)
RATE = number(0, 1)
SHARE = number(0, 1)
PLAIN = choice(*SCHEDULERS)

# setting: (how its value is read, the documented names, kohya's names)
_TABLE: tuple[tuple[str, Read, tuple[str, ...], tuple[str, ...]], ...] = (
    ("use_lora", flag, ("use_lora",), ()),
    ("rank", whole(1, 1024), ("rank", "lora_rank", "lora_unet_rank"), ("network_dim",)),
    ("alpha", number(0.01, 4096), ("alpha", "lora_alpha"), ("network_alpha",)),
    ("dropout", SHARE, ("dropout",), ("network_dropout",)),
    ("train_unet", flag, ("train_unet",), ()),
    ("train_unet", inverted, (), ("network_train_text_encoder_only",)),
    ("train_text_encoder", flag, ("train_text_encoder",), ()),
    ("train_text_encoder", inverted, (), ("network_train_unet_only",)),
    ("train_text_encoder", positive, ("stop_text_encoder",), ()),
    ("learning_rate", RATE, ("learning_rate",), ()),
    ("unet_learning_rate", RATE, ("lora_learning_rate",), ("unet_lr",)),
    ("text_encoder_learning_rate", RATE, ("lora_txt_learning_rate",), ("text_encoder_lr",)),
    ("scheduler", PLAIN, ("lr_scheduler",), ()),
    ("warmup_steps", EVERY, ("lr_warmup_steps",), ()),
    ("cycles", whole(1, 1000), ("lr_cycles",), ("lr_scheduler_num_cycles",)),
    ("power", number(0.1, 10), ("lr_power",), ("lr_scheduler_power",)),
    ("optimizer", optimizer, ("optimizer",), ("optimizer_type",)),
    ("weight_decay", SHARE, ("weight_decay", "adamw_weight_decay"), ()),
    ("beta1", SHARE, ("adam_beta1",), ()),
    ("beta2", SHARE, ("adam_beta2",), ()),
    ("epsilon", RATE, ("adam_epsilon",), ()),
    ("max_grad_norm", number(0, 1000), ("max_grad_norm",), ()),
    ("steps", STEPS, ("max_train_steps",), ()),
    ("epochs", whole(1, 100_000), ("num_train_epochs",), ("max_train_epochs",)),
    ("repeats", whole(1, 10_000), ("repeats",), ("dataset_repeats", "num_repeats")),
    ("batch_size", whole(1, 256), ("train_batch_size",), ("batch_size",)),
    ("accumulation", whole(1, 1024), ("gradient_accumulation_steps",), ()),
    ("resolution", size, ("resolution",), ()),
    ("bucketing", flag, ("use_buckets",), ("enable_bucket",)),
    ("bucket_step", whole(8, 512), (), ("bucket_reso_steps",)),
    ("smallest_bucket", whole(64, 4096), (), ("min_bucket_reso",)),
    ("largest_bucket", whole(64, 4096), (), ("max_bucket_reso",)),
    ("flip", flag, ("hflip",), ("flip_aug",)),
    ("caption_dropout", SHARE, (), ("caption_dropout_rate",)),
    ("shuffle_captions", flag, ("shuffle_tags",), ("shuffle_caption",)),
    ("noise_offset", SHARE, ("offset_noise",), ("noise_offset",)),
    ("min_snr_gamma", number(0, 100), ("snr_gamma",), ("min_snr_gamma",)),
    ("prior_weight", number(0, 100), ("prior_loss_weight",), ()),
    ("class_steps", whole(1, 200), ("class_infer_steps",), ()),
    ("class_guidance", number(0, 30), ("class_guidance_scale",), ()),
    ("gradient_checkpointing", flag, ("gradient_checkpointing",), ()),
    ("mixed_precision", choice(*PRECISIONS), ("mixed_precision",), ()),
    ("clip_skip", whole(0, 12), ("clip_skip",), ()),
    ("save_every_steps", EVERY, ("save_every_steps",), ("save_every_n_steps",)),
    ("save_every_epochs", EVERY, ("save_embedding_every",), ("save_every_n_epochs",)),
    ("sample_every_steps", EVERY, ("sample_every_steps",), ("sample_every_n_steps",)),
    ("sample_every_epochs", EVERY, ("save_preview_every",), ("sample_every_n_epochs",)),
    ("sample_prompts", texts, ("sample_prompts", "save_sample_prompt", "sanity_prompt"), ()),
    ("sample_negative_prompt", text, ("save_sample_negative_prompt",), ()),
    ("sample_steps", whole(1, 200), ("save_infer_steps",), ()),
    ("sample_guidance", number(0, 30), ("save_guidance_scale",), ()),
    ("seed", whole(0, 2**32 - 1), ("seed", "sanity_seed"), ()),
    ("comment", text, ("comment",), ("training_comment",)),
    ("save_precision", choice(*SAVE_PRECISIONS), ("save_precision",), ()),
    (
        READ_BEFORE,
        text,
        (
            *("concepts_list", "instance_prompt", "instance_data_dir"),
            *("class_prompt", "class_data_dir", "num_class_images", "num_class_images_per"),
            *("custom_model_name", "lora_name", "save_model_name"),
        ),
        ("output_name", "train_data_dir", "reg_data_dir"),
    ),
    (
        NO_EFFECT,
        text,
        ("model_name", "instance_token", "class_token"),
        (
            *("caption_extension", "pretrained_model_name_or_path", "output_dir", "logging_dir"),
            *("save_model_as", "network_module", "cache_latents", "cache_latents_to_disk", "xformers"),
            *("sdpa", "mem_eff_attn", "max_data_loader_n_workers", "persistent_data_loader_workers"),
        ),
    ),
)


def _named() -> Mapping[str, tuple[str, Read]]:
    found: dict[str, tuple[str, Read]] = {}
    for setting, read, documented, kohya in _TABLE:
        for name in (*documented, *kohya):
            found[name] = (setting, read)
    return found


NAMES = _named()
