"""Every write of this app: what components are, what people ask, and how that is carried out."""
