"""Commands on their way through the agent: taken in once, run, answered."""
