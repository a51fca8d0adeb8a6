"""The random choice: bounded, without replacement, only from what may train."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.nn.sampling import sample


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 40), st.sampled_from([0.25, 0.5]))
def test_counts_and_kinds(seed, entries, count, share):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (3, entries), generator=generator)
    chosen = sample(labels, count, share, generator)
    for row in range(3):
        picked = chosen.picked[row][chosen.used[row]]
        positive = chosen.picked[row][chosen.positive[row]]
        assert len(set(picked.tolist())) == len(picked)
        assert (labels[row][positive] > 0).all()
        assert (labels[row][picked] >= 0).all()
        assert len(positive) == min(int((labels[row] > 0).sum()), int(count * share))
        assert len(picked) == len(positive) + min(int((labels[row] == 0).sum()), count - len(positive))


def test_every_candidate_is_chosen_equally_often():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[1] * 10 + [0] * 10 + [-1] * 5]).repeat(4000, 1)
    chosen = sample(labels, 8, 0.5, generator)
    often = torch.bincount(chosen.picked[chosen.used], minlength=25).float() / 4000
    assert (often[20:] == 0).all()
    assert (often[:20] - 0.4).abs().max() < 0.03


def test_same_generator_same_choice():
    labels = torch.randint(-1, 2, (2, 500))
    first, second = (sample(labels, 64, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.picked, second.picked)
