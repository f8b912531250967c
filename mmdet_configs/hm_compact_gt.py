# A g_t for hm-compact's streams at every rate: x_bar shows detectors of people more of
# what they saw in the uncompressed picture. The streams and x_hat stay as they are. It
# is a reader: `hm-codec decode --reader people_gt` takes it. METRIC=person trains one
# for the weights for persons.
_base_ = "hm_compact_person.py"
model = dict(
    codec=dict(metric="{{$METRIC:mse}}", g_t_width=14, g_t_downscale=2),
    lambda_human=0,
    lambda_machine=1.0,
    trainable=("g_t",),
    reader="people_gt",
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
