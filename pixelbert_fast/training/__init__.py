"""Training: configuration, engines, optimiser, schedule, resumable state, loop and logs."""
