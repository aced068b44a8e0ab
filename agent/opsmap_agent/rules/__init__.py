"""What this host lets the backend do: which programs and scripts, as whom, within which limits, connecting where."""
