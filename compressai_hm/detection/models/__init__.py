"""Models of a codec in front of a detector, which MMEngine trains and tests."""
