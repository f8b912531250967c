# A codec in front of a detector. backbone stays empty, the detector's is in its own
# config: mmdet.apis.init_detector looks for it.
model = dict(type="HumanMachineDetector", backbone=dict())
