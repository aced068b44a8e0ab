"""The gateway of a zone: accepts its agents, holds a connection to the backend, and routes between them.

It keeps no durable truth: commands live in the backend, events in the agents' journals, until the other end
has them. Any of the three may die at any moment and nothing is lost; the gateway therefore never stores and
never acknowledges them. The one thing it stores are discovery results, which agents do not keep.
"""

__version__ = "0.1.0"
