"""The types that flow through the package, and the rules about them; nothing here reads a file."""
