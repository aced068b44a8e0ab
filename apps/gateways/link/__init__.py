"""What one connection of a gateway is made of: the agents behind it, what comes in, what goes out."""
