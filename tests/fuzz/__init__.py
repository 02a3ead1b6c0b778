"""Damaged files and wrong settings: one clear line, or what was asked for; never anything else."""
