# A compact codec: 0.9 M weights with g_t.
codec = dict(type="hm-mbt2018-mean", N=48, M=64, g_t_width=16, g_t_downscale=2)
