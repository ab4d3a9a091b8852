"""Data sets: pictures and captions to train on."""
