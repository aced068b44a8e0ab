"""Every write of this app: commands (what is asked), sessions (who is connected), reports (what hosts say)."""
