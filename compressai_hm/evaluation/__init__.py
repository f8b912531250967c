"""Rate-accuracy sweeps, BD figures, plots and a report."""
