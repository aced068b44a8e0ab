"""The connections to gateways: what is said on each, and which of them is in use."""
