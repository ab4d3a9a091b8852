"""Models, trainings and merges: the long work of GPU workers."""
