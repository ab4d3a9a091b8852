"""The house checkpoint: a tiny Stable Diffusion 1.x model of coloured shapes, trained from nothing."""
