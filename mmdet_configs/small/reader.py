# g_t alone, on the frozen stream of control.py.
_base_ = "adapted.py"
work_dir = f"work_dirs/small_reader_{_base_.run}"
model = dict(
    codec=dict(checkpoint=f"work_dirs/small_control_{_base_.run}/codec.pth.tar"),
    trainable=("g_t",),
    reader=f"person_q{_base_.quality}",
)
