"""Training of LoRAs and whole checkpoints on pictures with captions."""
