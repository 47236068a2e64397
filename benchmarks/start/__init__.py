"""How long it takes to import the library, and to start a server."""
