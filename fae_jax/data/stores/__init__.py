"""What was encoded once and is read again: latents and features."""
