"""Services on loopback that stand for an archive's: real programs, with failures on demand."""
