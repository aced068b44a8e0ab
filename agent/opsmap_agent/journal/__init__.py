"""What must survive a crash: commands taken in, jobs, and events that the backend has not acknowledged."""
