"""Files as data: bytes to tensors and back. Nothing here knows of masks, priors or fits."""
