# hm-compact's weights of the package trained further for people, at a rate that falls
# from the first step to the last. The weights that ship were trained so, from those of
# hm_compact.py; what EPOCHS more give is in results/compact.md. Data as there.
_base_ = "hm_compact.py"
model = dict(codec=dict(pretrained=True))
train_cfg = dict(max_epochs=int("{{$EPOCHS:12}}"))
optim_wrapper = dict(optimizer=dict(lr=4e-4))
custom_hooks = [*_base_.custom_hooks[:-1], dict(type="DecayHook", share=1.0)]
