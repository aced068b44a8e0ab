"""The composition root: what puts the apps together into processes. Apps never import it, `opsmap.lib` excepted."""
