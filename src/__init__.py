"""What Birdcall is made of: one module, one job. Nothing here imports a script."""
