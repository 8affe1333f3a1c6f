"""Attributes are told from what the model itself looks at, whichever vision encoder it has."""

import pytest
import torch
from models import make_model

from training.train.vision import AttributeClassifier


@pytest.mark.parametrize("encoder", ["clip", "siglip"])
def test_attributes_are_told_from_the_tokens_that_the_resampler_gets(encoder):
    model = make_model(vision=encoder)
    classifier = AttributeClassifier(model, 2, 1, 3, use_resampler=True).eval()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = classifier(pixels, torch.zeros(2, 2, 1, dtype=torch.long))["logits"]
        seen = model.encode_images(pixels).last_hidden_state
        expected = classifier.head(seen[:, :2]).unflatten(-1, (1, 3))
    assert torch.allclose(found, expected, atol=1e-6)
