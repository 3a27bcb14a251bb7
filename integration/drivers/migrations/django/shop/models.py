"""The migrations say it all."""
