# g_t alone, on the frozen stream of base.py.
_base_ = "adapted.py"
work_dir = f"work_dirs/small_reader_{_base_.run}"
model = dict(trainable=("g_t",), reader=f"person_q{_base_.quality}")
