# A compact codec with a context model: 3 M weights with g_t.
codec = dict(type="hm-mbt2018-s", N=64, M=192, g_t_width=32, g_t_downscale=4)
