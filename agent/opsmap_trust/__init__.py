"""Who said this: seals on frames, and the certificates of the keys behind them.

A seal is an Ed25519 signature over the canonical form of a frame. The backend's signing keys are certified below the
Backend CA, an agent signs with the key of its own certificate, below the Agent CA. A gateway has neither and can only
pass sealed frames on, or not.
"""
