# A compact codec with a context model, 3 M weights with g_t, at one of four rates:
# QUALITY=1 to 4, by default 4, from which the others are trained.
quality = int("{{$QUALITY:4}}")
lambda_human = {1: 0.0018, 2: 0.0035, 3: 0.0067, 4: 0.0130}[quality]
codec = dict(type="hm-mbt2018-s", N=64, M=192, g_t_width=32, g_t_downscale=4)
