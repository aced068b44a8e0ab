"""What runs OpsMap: `embedded` supervises everything on one machine, `demo` is the application it demonstrates."""
