"""Looking at components: completion checks once, health checks again and again."""
