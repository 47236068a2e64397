"""Closed-loop load: Locust's users against the server, as in the report that this project began with."""
