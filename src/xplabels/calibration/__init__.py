"""What is fitted so that stated errors hold: alone and together, their shape, and shrinkage."""
