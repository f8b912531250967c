# A compact codec with a context model: 2 M weights.
codec = dict(type="hm-mbt2018", N=64, M=96)
