"""Graph in, plan out: pure Python, no ORM, no I/O."""
