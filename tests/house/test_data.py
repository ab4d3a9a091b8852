"""Tests of the tokenised captions and painted pictures that training reads."""

import random

import torch

from house import architecture, shapes
from house.data import Captioner, Pictures, draw_subjects
from house.judge import read_picture


def test_the_tokenizer_gives_clips_published_ids() -> None:
    ids = architecture.load_tokenizer()("a cute panda").input_ids
    assert ids == [49406, 320, 2242, 12952, 49407]


def test_captions_are_among_filler_words_and_always_name_their_subject() -> None:
    captioner, rng = Captioner(), random.Random(1)
    subjects = draw_subjects(300, rng)
    tokenizer = architecture.load_tokenizer()
    texts = tokenizer.batch_decode(
        captioner.encode(subjects, rng, filler_share=1.0), skip_special_tokens=True
    )
    for text, subject in zip(texts, subjects, strict=True):
        assert subject.foreground in text
        assert subject.shape in text
    assert sum("," in text for text in texts) > 200


def test_dropped_captions_name_nothing() -> None:
    captioner, rng = Captioner(), random.Random(2)
    ids = captioner.encode(draw_subjects(200, rng), rng, filler_share=0.5, drop_share=1.0)
    texts = architecture.load_tokenizer().batch_decode(ids, skip_special_tokens=True)
    assert texts.count("") > 100
    assert not any(shape in text for text in texts for shape in shapes.SHAPES)
    assert any(texts)


def test_training_subjects_leave_out_the_held_out_combinations() -> None:
    subjects = draw_subjects(5000, random.Random(3))
    assert set(subjects) == {*shapes.TRAINING, *shapes.PLAIN}


def test_painted_pictures_show_their_subjects() -> None:
    torch.manual_seed(0)
    rng = random.Random(4)
    subjects = draw_subjects(50, rng)
    pictures = Pictures(40, seed=0).paint(subjects, rng)
    assert pictures.shape == (50, 3, 64, 64)
    arrays = (pictures.permute(0, 2, 3, 1) * 127.5 + 127.5).byte().numpy()
    assert all(read_picture(one).agrees_with(what) for one, what in zip(arrays, subjects, strict=True))
