custom_imports = dict(imports=["compressai_hm.detection"])
default_scope = "mmdet"

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # Checkpoints are written aside and renamed. At least 2 are kept, because MMEngine
    # removes the oldest before it writes the newest.
    checkpoint=dict(
        type="CheckpointHook",
        interval=1,
        max_keep_ckpts=2,
        backend_args=dict(backend="atomic_local"),
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    data=dict(type="CheckDataHook"),
    runtime_info=dict(type="CheckLossHook"),
)
custom_hooks = [
    dict(type="ReseedHook"),
    dict(type="SaveTablesHook"),
    dict(type="ExportCodecHook"),
    dict(type="DrawViewsHook"),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(
    type="DetLocalVisualizer", vis_backends=vis_backends, name="visualizer"
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"
load_from = None
resume = False
