"""Who may do what: the one resolver, behind Django's `user.has_perm`."""
