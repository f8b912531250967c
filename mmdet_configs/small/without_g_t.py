# The paper's ablation: no g_t; the detector reads what people see.
_base_ = "adapted.py"
work_dir = f"work_dirs/small_without_g_t_{_base_.run}"
model = dict(codec=dict(g_t_width=0))
