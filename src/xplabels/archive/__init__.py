"""Bytes -> Stars, one module per format; nothing downstream knows a file format."""
