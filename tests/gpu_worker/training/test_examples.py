"""The order of examples: by seed and step alone, so that a resumed training goes on as it would have."""

import torch

from gpu_worker.training.buckets import Bucket
from gpu_worker.training.examples import Example, Order
from gpu_worker.training.settings import Settings


def example(caption: str, side: int = 64, is_class: bool = False) -> Example:
    latents = torch.zeros(2, 4, side // 8, side // 8)
    latents[0] += hash(caption) % 7
    return Example((latents,), caption, Bucket(side, side), (side, side), is_class)


def test_every_picture_comes_once_in_an_epoch_and_the_next_epoch_has_another_order() -> None:
    order = Order([example(str(n)) for n in range(7)], Settings(batch_size=2, epochs=3))
    assert (order.per_epoch, order.total_steps) == (4, 12)
    epochs = [
        [caption for number in range(4) for caption in order.batch(epoch * 4 + number).captions]
        for epoch in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [str(n) for n in range(7)]
    assert epochs[0] != epochs[1]


def test_a_batch_is_the_same_whenever_it_is_asked_for() -> None:
    examples = [example(str(n)) for n in range(5)]
    first, again = (Order(examples, Settings(batch_size=2, seed=4)).batch(9) for _ in range(2))
    assert first.captions == again.captions
    assert torch.equal(first.latents, again.latents)


def test_pictures_of_different_sizes_are_not_mixed() -> None:
    order = Order([example("a"), example("b", 128), example("c"), example("d", 128)], Settings(batch_size=4))
    assert {tuple(sorted(order.batch(number).captions)) for number in range(2)} == {("a", "c"), ("b", "d")}


def test_class_pictures_are_as_many_as_the_others_and_weigh_what_is_set() -> None:
    own = [example(f"own{n}") for n in range(4)]
    others = [example(f"class{n}", is_class=True) for n in range(3)]
    order = Order([*own, *others], Settings(batch_size=8, prior_weight=0.5))
    batch = order.batch(0)
    assert sum(caption.startswith("class") for caption in batch.captions) == 4
    by_caption = dict(zip(batch.captions, batch.weights.tolist(), strict=True))
    assert by_caption["own0"] == 1.0
    assert by_caption["class0"] == 0.5


def test_steps_count_accumulated_batches() -> None:
    order = Order([example(str(n)) for n in range(8)], Settings(batch_size=2, accumulation=4, epochs=6))
    assert order.total_steps == 6
    assert order.steps_of(2) == 2
