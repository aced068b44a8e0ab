"""What the agent does about itself: starting once, staying alive and small, saying how it is, going away."""
