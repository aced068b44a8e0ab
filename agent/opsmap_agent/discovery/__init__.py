"""What this host can find out about itself: who runs here, who listens, who talks to whom, on what it is built.

Collectors (services, processes, sockets, containers, pods, filesystems, technologies) read what the kernel and local
APIs say, never run a program, and know nothing of each other. `survey` calls them in a short-lived child process
(`child`) and keeps each kind within its budget; `discoverer` decides when, and tells the backend what has changed.
"""
