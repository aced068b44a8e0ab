"""What people ask and what hosts report: plans, operations, steps, states, health, and live news for browsers."""
