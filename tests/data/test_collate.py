"""Samples side by side: padding is never learned, and a label is the token that follows."""

from __future__ import annotations

import torch

from llavakit.data.collate import IGNORE, ROUND_TO, CaptionSample, Sample, collate, collate_captions


def test_a_label_is_the_token_that_follows() -> None:
    batch = collate([Sample([1, 5, 6, 2], [False, False, True, True]), Sample([1, 7], [False, True])], pad=0)
    assert batch.tokens[:, :4].tolist() == [[1, 5, 6, 2], [1, 7, 0, 0]]
    assert batch.labels[:, :4].tolist() == [[IGNORE, 6, 2, IGNORE], [7, IGNORE, IGNORE, IGNORE]]
    assert batch.positions.tolist() == [list(range(ROUND_TO))] * 2
    assert (batch.num_targets, batch.images) == (3, None)


def test_widths_come_in_steps() -> None:
    """Few shapes in a run; what is filled up is padding and never learned."""
    for length, width in ((1, ROUND_TO), (ROUND_TO, ROUND_TO), (ROUND_TO + 1, 2 * ROUND_TO)):
        batch = collate([Sample([5] * length, [True] * length)], pad=0)
        assert batch.tokens.shape == batch.labels.shape == (1, width)
        assert not batch.tokens[:, length:].any()
        assert batch.num_targets == length - 1


def test_pictures_come_in_the_order_of_their_samples() -> None:
    pictures = torch.rand(2, 1, 3, 4, 4)
    samples = [Sample([3, 5], [False, True], pixels) for pixels in (pictures[0], None, pictures[1])]
    assert torch.equal(collate(samples, pad=0).images.pixels, pictures.flatten(0, 1))


def test_pictures_of_any_number_of_views_keep_their_sizes() -> None:
    one, other = torch.rand(3, 3, 4, 4), torch.rand(5, 3, 4, 4)
    samples = [Sample([3], [False], one, [(8, 4)]), Sample([5], [True]), Sample([3], [False], other, [(8, 8)])]
    images = collate(samples, pad=0).to(torch.device("cpu")).images
    assert torch.equal(images.pixels, torch.cat((one, other)))
    assert images.sizes == [(8, 4), (8, 8)]


def test_captions_first_and_then_the_foils() -> None:
    pixels = torch.zeros(1, 3, 4, 4)
    samples = [
        CaptionSample(pixels, [1, 5, 2], [[1, 2]], [], []),
        CaptionSample(pixels, [1, 6, 7, 2], [[1, 8, 2]], [], []),
    ]
    batch = collate_captions(samples, pad=0)
    assert batch.texts[:, :4].tolist() == [[1, 5, 2, 0], [1, 6, 7, 2], [1, 2, 0, 0], [1, 8, 2, 0]]
    assert batch.lengths.tolist() == [3, 4, 2, 3]
    assert batch.num_targets == 5


def test_words_of_several_pictures_come_once() -> None:
    pixels = torch.zeros(1, 3, 4, 4)
    samples = [
        CaptionSample(pixels, [1, 2], [], [[1, 5, 2], [1, 6, 7, 2]], [0, 1, 1, IGNORE]),
        CaptionSample(pixels, [1, 2], [], [[1, 6, 7, 2], [1, 8, 2]], [1, IGNORE, 0, 0]),
    ]
    batch = collate_captions(samples, pad=0)
    assert batch.words[:, :4].tolist() == [[1, 5, 2, 0], [1, 6, 7, 2], [1, 8, 2, 0]]
    assert batch.word_lengths.tolist() == [3, 4, 3]
    assert batch.patch_words.tolist() == [[0, 1, 1, IGNORE], [2, IGNORE, 1, 1]]
