"""Tests of the training stages' arithmetic and of continuing an interrupted run."""

from pathlib import Path

import pytest
import torch

from house import architecture, run_state, stages
from house.data import Captioner
from house.run_state import Run

CPU = torch.device("cpu")


@torch.no_grad()
def test_folding_gives_unit_latents_and_leaves_the_reconstruction_alone() -> None:
    torch.manual_seed(0)
    vae = architecture.build_vae().eval()
    vae.quant_conv.bias[0] = 3.0
    pictures = torch.rand(8, 3, 64, 64) * 2 - 1
    before = vae.encode(pictures).latent_dist
    drawn_before = vae.decode(before.mean).sample
    stages.fold_latent_statistics(vae, before.mean)
    after = vae.encode(pictures).latent_dist
    latents = after.mean * architecture.SCALING_FACTOR
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(vae.decode(after.mean).sample, drawn_before, atol=1e-3, rtol=1e-3)
    # The noise of sampling must shrink and grow with the latents.
    relative_noise = [one.std / one.mean.std((0, 2, 3), keepdim=True) for one in (before, after)]
    torch.testing.assert_close(*relative_noise, atol=1e-3, rtol=1e-3)


def test_the_learning_rate_warms_up_peaks_and_ends_near_zero() -> None:
    rates = [stages.learning_rate(progress / 100, 1.0) for progress in range(101)]
    assert rates[0] < 0.05
    assert max(rates) == rates[5] > 0.95
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[100] == pytest.approx(0.02)


class Interruption(Exception):
    """Stands for a run that is killed."""


def train_text(folder: Path, captioner: Captioner, interrupt_at: int | None = None) -> Run:
    """Four steps of the text stage, interrupted before the given one."""
    run = Run(folder, CPU)
    descend = stages._descend

    def descend_or_die(*arguments: object) -> None:
        if run.step == interrupt_at:
            raise Interruption
        descend(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_state, "SAVE_EVERY_SECONDS", 0.0)
        patch.setattr(stages, "TEXT_BATCH", 4)
        patch.setattr(stages, "_descend", descend_or_die)
        stages.freeze_unknown_words(run.networks["text_encoder"], captioner.known_ids)
        stages.train_text_encoder(run, captioner, total=4)
    return run


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    captioner = Captioner()
    whole = train_text(tmp_path / "whole", captioner)
    with pytest.raises(Interruption):
        train_text(tmp_path / "cut", captioner, interrupt_at=2)
    continued = train_text(tmp_path / "cut", captioner)
    assert continued.done == ["text"]
    expected = whole.networks["text_encoder"].state_dict()
    for name, tensor in continued.networks["text_encoder"].state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_words_that_no_caption_uses_keep_zero_embeddings(tmp_path: Path) -> None:
    captioner = Captioner()
    run = train_text(tmp_path, captioner)
    table = run.networks["text_encoder"].get_input_embeddings().weight
    moved = set(torch.nonzero(table.abs().sum(1)).flatten().tolist())
    assert moved == captioner.known_ids
