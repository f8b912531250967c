# A compact codec with a context model: 2 M weights with g_t.
codec = dict(type="hm-mbt2018", N=64, M=96, g_t_width=32, g_t_downscale=4)
